"""Linear attention in NumPy: parallel, recurrent and chunked.

All compute in float32 (float64 for float64). The values get a column of ones, so that numerator and denominator are one product.
Shapes: q, k (B, H, L, D), v (B, H, L, Dv) -> (B, H, L, Dv).
"""

from __future__ import annotations

import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.features import features, gates, quotient, state_sums
from implementations.numpy.logits import Array, working_dtype
from implementations.tiling import tiles

__all__ = ["chunked", "gated_chunked", "gated_parallel", "parallel", "recurrent"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
CHUNKS = {"chunk_size": block_sizes}


def _with_ones(v: Array, dtype: np.dtype) -> Array:
    return np.concatenate([v.astype(dtype), np.ones((*v.shape[:3], 1), dtype)], axis=3)


def _chunked_total(keys: Array, values: Array, chunk_size: int) -> Array:
    """sum_j keys_j values_j^T, (B, H, M, E), a chunk of keys at a time."""
    state = np.zeros((*keys.shape[:2], keys.shape[3], values.shape[3]), values.dtype)
    for rows in tiles(slice(0, keys.shape[2]), chunk_size):
        state += keys[:, :, rows].swapaxes(2, 3) @ values[:, :, rows]
    return state


@register("linear_attention", backend="numpy", name="numpy.linear", dtypes=DTYPES, description="all weights at once, then their sums")
def parallel(q: Array, k: Array, v: Array, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6) -> Array:
    """Quadratic in the length: the matrix of weights is formed, masked and divided by its sums (Katharopoulos et al. 2020, eq. 4)."""
    dtype = working_dtype(q)
    weights = features(q.astype(dtype), feature_map) @ features(k.astype(dtype), feature_map).swapaxes(2, 3)
    if causal:
        weights = np.tril(weights)
    return quotient(weights @ v.astype(dtype), weights.sum(axis=3, keepdims=True), eps).astype(q.dtype)


@register("linear_attention", backend="numpy", name="numpy.linear_recurrent", dtypes=DTYPES, description="one token after another")
def recurrent(q: Array, k: Array, v: Array, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6) -> Array:
    """As a recurrent network (Katharopoulos et al. 2020, eq. 16-20): a state takes in a token, then answers its query."""
    dtype = working_dtype(q)
    queries, keys, values = features(q.astype(dtype), feature_map), features(k.astype(dtype), feature_map), v.astype(dtype)
    batch, heads, length, width = keys.shape
    state, sizes = np.zeros((batch, heads, width, v.shape[3]), dtype), np.zeros((batch, heads, width), dtype)
    weighed, total = np.empty(v.shape, dtype), np.empty((batch, heads, length, 1), dtype)
    for token in range(length):
        state += keys[:, :, token, :, None] * values[:, :, token, None, :]
        sizes += keys[:, :, token]
        if causal:
            weighed[:, :, token] = (queries[:, :, token, None] @ state)[:, :, 0]
            total[:, :, token, 0] = (queries[:, :, token] * sizes).sum(axis=-1)
    if not causal:
        weighed, total = queries @ state, queries @ sizes[..., None]
    return quotient(weighed, total, eps).astype(q.dtype)


@register(
    "linear_attention", backend="numpy", name="numpy.linear_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="chunks: weights inside, a state for what came before",
)  # fmt: skip
def chunked(
    q: Array, k: Array, v: Array, *, feature_map: str = "elu+1", causal: bool = False, eps: float = 1e-6, chunk_size: int = 128
) -> Array:
    """Linear in the length, with matrix products of whole chunks (Yang et al. 2023, section 2.2, arXiv:2312.06635)."""
    dtype = working_dtype(q)
    queries, keys, values = features(q.astype(dtype), feature_map), features(k.astype(dtype), feature_map), _with_ones(v, dtype)
    sums = np.empty(values.shape, dtype)
    if causal:
        for rows, part in state_sums(queries, keys, values, chunk_size):
            sums[:, :, rows] = part
    else:
        sums = queries @ _chunked_total(keys, values, chunk_size)
    return quotient(sums[..., :-1], sums[..., -1:], eps).astype(q.dtype)


@register(
    "scalar_gated_linear_attention", backend="numpy", name="numpy.scalar_gated_linear", dtypes=DTYPES,
    description="gates in the features of the keys, one state",
)  # fmt: skip
def gated_parallel(q: Array, k: Array, v: Array, *, feature_map: str = "relu+1", eps: float = 1e-6) -> Array:
    """One product over all keys, in time linear in the length; the gate is part of the features of its key."""
    dtype = working_dtype(q)
    keys = features(k.astype(dtype), feature_map) * gates(k.astype(dtype))
    queries = features(q.astype(dtype), feature_map)
    sums = queries @ (keys.swapaxes(2, 3) @ _with_ones(v, dtype))
    return quotient(sums[..., :-1], sums[..., -1:], eps).astype(q.dtype)


@register(
    "scalar_gated_linear_attention", backend="numpy", name="numpy.scalar_gated_linear_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="gates in the values, chunks of keys",
)  # fmt: skip
def gated_chunked(q: Array, k: Array, v: Array, *, feature_map: str = "relu+1", eps: float = 1e-6, chunk_size: int = 256) -> Array:
    """The gate weighs the row of values and its one; chunks of keys are added to one state."""
    dtype = working_dtype(q)
    values = _with_ones(v, dtype) * gates(k.astype(dtype))
    state = _chunked_total(features(k.astype(dtype), feature_map), values, chunk_size)
    out = np.empty(v.shape, q.dtype)
    for rows in tiles(slice(0, q.shape[2]), chunk_size):
        sums = features(q[:, :, rows].astype(dtype), feature_map) @ state
        out[:, :, rows] = quotient(sums[..., :-1], sums[..., -1:], eps)
    return out
