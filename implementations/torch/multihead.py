"""Adapters to `torch.nn.functional.multi_head_attention_forward`, the function under `nn.MultiheadAttention`.

Its projections are fed identity matrices, which are exact in every dtype, so that only the attention is left. It has two
paths with meanings of their own: `need_weights=False` ends in `F.scaled_dot_product_attention`; `need_weights=True`, the
default of `nn.MultiheadAttention`, is a softmax between two batched products in the dtype of the inputs, so that it is not
registered for 16 bits: neither the logits nor the softmax are float32 there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import multi_head_attention_forward

from conformance import register
from implementations.tiling import Window
from implementations.torch.masks import attention_mask

__all__ = ["mha", "mha_weights"]

SHARED_WIDTHS = {
    "h == g": "multi-head attention has no grouped heads",
    "d == e": "multi-head attention splits queries, keys and values into heads of one width",
}


def _fold_heads(x: Tensor) -> Tensor:
    """(B, H, L, D) -> (L, B, H * D), the layout of `nn.MultiheadAttention`."""
    batch, heads, length, width = x.shape
    return x.permute(2, 0, 1, 3).reshape(length, batch, heads * width)


def _multi_head(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, need_weights: bool) -> Tensor:
    batch, heads, queries, width = q.shape
    embedding = heads * width
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = ~attn_mask  # here True means "may not attend"
        attn_mask = attn_mask.reshape(batch * heads, queries, k.shape[2])
    identity = torch.eye(embedding, dtype=q.dtype, device=q.device)
    out, _ = multi_head_attention_forward(
        _fold_heads(q),
        _fold_heads(k),
        _fold_heads(v),
        embed_dim_to_check=embedding,
        num_heads=heads,
        in_proj_weight=identity.repeat(3, 1),
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=identity,
        out_proj_bias=None,
        training=False,
        need_weights=need_weights,
        attn_mask=attn_mask,
    )
    return out.reshape(queries, batch, heads, width).permute(1, 2, 0, 3)


@register(
    "attention",
    backend="torch",
    name="torch.mha",
    dtypes=("float32", "float64", "float16", "bfloat16"),
    restrictions={
        **SHARED_WIDTHS,
        "b * s > 0 or (mask is None and bias is None and window is None and not causal)": "a mask without elements raises: "
        "it is viewed as (B, H, -1, Lk), and -1 is ambiguous then",
    },
    description="multi_head_attention_forward with identity projections, need_weights=False",
)
def mha(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
) -> Tensor:
    """Multi-head attention without its weights."""
    return _multi_head(q, k, v, attention_mask(q, k, mask, bias, causal, window), need_weights=False)


@register(
    "attention",
    backend="torch",
    name="torch.mha_weights",
    dtypes=("float32", "float64"),
    conventions={"empty_row": "nan"},
    restrictions={
        **SHARED_WIDTHS,
        "s > 0": "a row that is masked out is NaN, but a row without any keys is zeros",
        "h == 1 or mask is None": "the output projection carries the NaN of one head's empty row into every head: 0 * NaN",
    },
    description="multi_head_attention_forward with identity projections, need_weights=True",
)
def mha_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
) -> Tensor:
    """Multi-head attention beside its weights, which are thrown away here."""
    return _multi_head(q, k, v, attention_mask(q, k, mask, bias, causal, window), need_weights=True)
