"""Features of linear attention and of Performers in PyTorch, and causal sums over all chunks at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["causal_sums", "features", "rounded", "with_ones"]


def features(x: Tensor, feature_map: str) -> Tensor:
    """Non-negative features, elementwise."""
    if feature_map == "exp":
        return torch.exp(x)
    if feature_map == "elu+1":
        # F.elu(x) + 1 would cancel for x << 0; the branch that is not taken must not overflow.
        return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))
    return functional.relu(x) + 1 if feature_map == "relu+1" else functional.relu(x)


def rounded(x: Tensor, like: Tensor) -> Tensor:
    """A factor of a matrix product as a matrix unit reads it: rounded to the storage dtype, the product itself in float32."""
    return x.to(like.dtype).to(x.dtype)


def with_ones(v: Tensor, dtype: torch.dtype) -> Tensor:
    """Values with a column of ones, whose weighed sum is the denominator."""
    return torch.cat([v.to(dtype), v.new_ones((*v.shape[:3], 1), dtype=dtype)], dim=3)


def causal_sums(queries: Tensor, keys: Tensor, values: Tensor, chunk_size: int) -> Tensor:
    """sum_{j <= i} (queries_i . keys_j) values_j, (B, H, L, E), without a loop.

    The sequence is padded to whole chunks; the states before all chunks are one running sum over the chunks' own.
    """
    batch, heads, length = keys.shape[:3]
    chunk = min(chunk_size, max(length, 1))
    count = -(-length // chunk)
    q, k, v = (
        functional.pad(x, (0, 0, 0, count * chunk - length)).reshape(batch, heads, count, chunk, x.shape[3])
        for x in (queries, keys, values)
    )
    own = k.mT @ v  # (B, H, chunks, M, E)
    before = torch.cumsum(own, dim=2).roll(1, dims=2)
    before[:, :, :1] = 0
    sums = (q @ k.mT).tril() @ v + q @ before
    return sums.reshape(batch, heads, count * chunk, values.shape[3])[:, :, :length]
