"""linear-attention-transformer: its causal attention, softmax(q) exp(k)^T v, in which the softmax of the queries cancels."""

from __future__ import annotations

from linear_attention_transformer.linear_attention_transformer import causal_linear_attn
from torch import Tensor

from conformance import register

__all__ = ["causal_linear"]


@register(
    "linear_attention",
    backend="torch",
    name="thirdparty.linear_attention_transformer",
    restrictions={
        "causal": "causal_linear_attn",
        "feature_map == 'exp'": "exp(k), and of the queries a multiple of exp(q)",
        "eps == 0": "the denominator is clamped instead (left out here)",
        "d == e": "values are as wide as keys",
        "l > 0 and d > 0": "there are tokens and columns",
    },
    description="linear-attention-transformer: causal_linear_attn(bucket_size=1, eps=0)",
)
def causal_linear(q: Tensor, k: Tensor, v: Tensor, *, feature_map: str, causal: bool, eps: float = 0.0) -> Tensor:
    """`causal_linear_attn` in buckets of one token, so that a query reads its own key too."""
    return causal_linear_attn(q, k, v, bucket_size=1, eps=eps)
