"""performer-pytorch: softmax kernels by positive random features, and linear attention with other kernels."""

from __future__ import annotations

import torch
from performer_pytorch.performer_pytorch import causal_linear_attention_noncuda, generalized_kernel, linear_attention, softmax_kernel
from torch import Tensor

from conformance import block_sizes, register

__all__ = ["linear", "performer"]

# phi(x) = kernel_fn(x) + kernel_epsilon
KERNELS = {"relu+1": (torch.relu, 1.0), "relu": (torch.relu, 0.0), "exp": (torch.exp, 0.0)}


@register(
    "performer_attention",
    backend="torch",
    name="thirdparty.performer_pytorch",
    restrictions={"l > 0": "there are tokens", "d > 0": "there are columns"},
    description="performer-pytorch: softmax_kernel, linear_attention",
)
def performer(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, *, causal: bool = False) -> Tensor:
    """As `FastAttention` calls them, with the given projection."""
    queries = softmax_kernel(q, projection_matrix=projection, is_query=True)
    keys = softmax_kernel(k, projection_matrix=projection, is_query=False)
    return (causal_linear_attention_noncuda if causal else linear_attention)(queries, keys, v)


@register(
    "linear_attention",
    backend="torch",
    name="thirdparty.performer_pytorch_linear",
    tunables={"chunk_size": block_sizes},
    restrictions={
        "eps == 0": "nothing is added to the denominator",
        "feature_map in ('relu+1', 'relu', 'exp')": "kernel_fn is the caller's: a function and a constant that is added",
        "l > 0": "there are tokens",
    },
    description="performer-pytorch: generalized_kernel, linear_attention",
)
def linear(
    q: Tensor, k: Tensor, v: Tensor, *, feature_map: str, causal: bool = False, eps: float = 0.0, chunk_size: int = 128
) -> Tensor:
    """As `FastAttention(generalized_attention=True, no projection)` calls them, with chunks of any length for causality."""
    kernel, epsilon = KERNELS[feature_map]
    queries, keys = (
        generalized_kernel(x, projection_matrix=None, kernel_fn=kernel, kernel_epsilon=epsilon, normalize_data=False) for x in (q, k)
    )
    if causal:
        return causal_linear_attention_noncuda(queries, keys, v, chunk_size=chunk_size, eps=eps)
    return linear_attention(queries, keys, v)
