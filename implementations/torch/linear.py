"""Linear attention in PyTorch, on any device: parallel, recurrent and chunked.

All compute in float32 (float64 for float64). Shapes: q, k (B, H, L, D), v (B, H, L, Dv) -> (B, H, L, Dv).
"""

from __future__ import annotations

import torch
from torch import Tensor

from conformance import register
from conformance.registry import block_sizes
from implementations.torch.features import causal_sums, features, rounded, with_ones
from implementations.torch.logits import working_dtype

__all__ = ["chunked", "gated_chunked", "gated_einsum", "parallel", "recurrent"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
CHUNKS = {"chunk_size": block_sizes}


@register(
    "linear_attention", backend="torch", name="torch.linear", dtypes=DTYPES, description="all weights at once, normalised, then the values"
)
def parallel(q: Tensor, k: Tensor, v: Tensor, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6) -> Tensor:
    """Quadratic in the length; the weights are divided before they meet the values (Katharopoulos et al. 2020, eq. 4)."""
    dtype = working_dtype(q)
    weights = torch.einsum("bhld,bhsd->bhls", features(q.to(dtype), feature_map), features(k.to(dtype), feature_map))
    if causal:
        weights = weights.tril()
    shares = weights / (weights.sum(dim=-1, keepdim=True) + eps)
    return torch.einsum("bhls,bhse->bhle", shares, v.to(dtype)).to(q.dtype)


@register("linear_attention", backend="torch", name="torch.linear_recurrent", dtypes=DTYPES, description="one token after another")
def recurrent(q: Tensor, k: Tensor, v: Tensor, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6) -> Tensor:
    """As a recurrent network (Katharopoulos et al. 2020, eq. 16-20); the last column of the state is the denominator's."""
    dtype = working_dtype(q)
    queries, keys, values = features(q.to(dtype), feature_map), features(k.to(dtype), feature_map), with_ones(v, dtype)
    batch, heads, length, width = keys.shape
    state = queries.new_zeros(batch, heads, width, values.shape[3])
    rows = []
    for token in range(length):
        state = torch.addcmul(state, keys[:, :, token, :, None], values[:, :, token, None, :])
        if causal:
            rows.append(queries[:, :, token, None] @ state)
    sums = torch.cat(rows, dim=2) if rows else queries @ state
    return (sums[..., :-1] / (sums[..., -1:] + eps)).to(q.dtype)


@register(
    "linear_attention", backend="torch", name="torch.linear_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="all chunks at once, factors of products in the storage dtype",
)  # fmt: skip
def chunked(
    q: Tensor, k: Tensor, v: Tensor, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6, chunk_size: int = 64
) -> Tensor:
    """Chunks without a loop (Yang et al. 2023, section 2.2, arXiv:2312.06635); features are rounded as matrix units read them."""
    dtype = working_dtype(q)
    queries = rounded(features(q.to(dtype), feature_map), q)
    keys = rounded(features(k.to(dtype), feature_map), q)
    values = with_ones(v, dtype)
    sums = causal_sums(queries, keys, values, chunk_size) if causal else queries @ (keys.mT @ values)
    return (sums[..., :-1] / (sums[..., -1:] + eps)).to(q.dtype)


def _log_gates(k: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(k.sum(dim=-1, keepdim=True))


@register(
    "scalar_gated_linear_attention", backend="torch", name="torch.scalar_gated_linear", dtypes=DTYPES,
    description="gates, features, values and ones in one einsum over keys",
)  # fmt: skip
def gated_einsum(q: Tensor, k: Tensor, v: Tensor, *, feature_map: str = "relu+1", eps: float = 1e-6) -> Tensor:
    """One state of D x Dv numbers and one of D, in time linear in the length."""
    dtype = working_dtype(q)
    queries, keys = features(q.to(dtype), feature_map), features(k.to(dtype), feature_map)
    weighed = v.to(dtype) * torch.sigmoid(k.to(dtype).sum(dim=-1, keepdim=True))
    gates = torch.sigmoid(k.to(dtype).sum(dim=-1))
    sums = queries @ torch.einsum("bhsd,bhse->bhde", keys, weighed)
    total = queries @ torch.einsum("bhsd,bhs->bhd", keys, gates)[..., None]
    return (sums / (total + eps)).to(q.dtype)


@register(
    "scalar_gated_linear_attention", backend="torch", name="torch.scalar_gated_linear_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="gates by their logarithm, chunks of keys as one batched product",
)  # fmt: skip
def gated_chunked(q: Tensor, k: Tensor, v: Tensor, *, feature_map: str = "relu+1", eps: float = 1e-6, chunk_size: int = 256) -> Tensor:
    """Chunks of keys make states of their own, which are added up; the gate multiplies the features of its key."""
    dtype = working_dtype(q)
    keys = features(k.to(dtype), feature_map) * torch.exp(_log_gates(k.to(dtype)))
    values = with_ones(v, dtype)
    length = k.shape[2]
    states = [
        keys[:, :, start : start + chunk_size].mT @ values[:, :, start : start + chunk_size] for start in range(0, length, chunk_size)
    ]
    state = torch.stack(states).sum(dim=0) if states else keys.mT @ values
    sums = features(q.to(dtype), feature_map) @ state
    return (sums[..., :-1] / (sums[..., -1:] + eps)).to(q.dtype)
