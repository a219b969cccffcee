"""Performer attention in PyTorch, on any device: parallel and chunked.

Shapes: q, k (B, H, L, D), v (B, H, L, Dv), projection (M, D) -> (B, H, L, Dv).
"""

from __future__ import annotations

import torch
from torch import Tensor

from conformance import register
from conformance.registry import block_sizes
from implementations.torch.features import causal_sums, rounded, with_ones
from implementations.torch.logits import working_dtype

__all__ = ["chunked", "parallel"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


@register(
    "performer_attention", backend="torch", name="torch.performer", dtypes=DTYPES,
    description="FAVOR+, D^(1/4) in the projection, a stabiliser for all keys of the call",
)  # fmt: skip
def parallel(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, *, causal: bool = False, eps: float = 1e-6) -> Tensor:
    """Positive features (Choromanski et al. 2021, arXiv:2009.14794); the stabilisers are of the projections alone."""
    dtype, width = working_dtype(q), max(q.shape[3], 1)
    rows = projection.to(dtype) * width**-0.25
    logarithms = []
    for x, dims in ((q.to(dtype), (3,)), (k.to(dtype), (0, 1, 2, 3))):
        projected = x @ rows.T
        if x.shape[0] * x.shape[1] * x.shape[2]:
            projected = projected - projected.amax(dim=dims, keepdim=True)
        logarithms.append(projected - x.square().sum(dim=3, keepdim=True) * (0.5 * width**-0.5))
    queries, keys = (torch.exp(logarithm) * len(rows) ** -0.5 for logarithm in logarithms)
    weights = queries @ keys.mT
    if causal:
        weights = weights.tril()
    return (weights @ v.to(dtype) / (weights.sum(dim=3, keepdim=True) + eps)).to(q.dtype)


@register(
    "performer_attention", backend="torch", name="torch.performer_chunked", dtypes=DTYPES, tunables={"chunk_size": block_sizes},
    description="FAVOR+, all chunks at once, features in the storage dtype",
)  # fmt: skip
def chunked(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, *, causal: bool = False, eps: float = 1e-6, chunk_size: int = 64
) -> Tensor:
    """Linear in the length, without a loop; features are rounded as matrix units read them."""
    dtype = working_dtype(q)
    made = []
    for x, dims in ((q.to(dtype), (3,)), (k.to(dtype), (2, 3))):
        scaled = x / max(x.shape[3], 1) ** 0.25
        logarithm = scaled @ projection.to(dtype).T - scaled.square().sum(dim=3, keepdim=True) / 2
        highest = logarithm.amax(dim=dims, keepdim=True) if x.shape[2] else 0.0
        made.append(rounded(torch.exp(logarithm - highest) / len(projection) ** 0.5, q))
    queries, keys = made
    values = with_ones(v, dtype)
    sums = causal_sums(queries, keys, values, chunk_size) if causal else queries @ (keys.mT @ values)
    return (sums[..., :-1] / (sums[..., -1:] + eps)).to(q.dtype)
