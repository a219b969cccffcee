"""Performer attention in NumPy: parallel and chunked, with the stabilisers that keep exponentials in range.

Shapes: q, k (B, H, L, D), v (B, H, L, Dv), projection (M, D) -> (B, H, L, Dv).
"""

from __future__ import annotations

import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.features import quotient, state_sums
from implementations.numpy.logits import Array, working_dtype

__all__ = ["chunked", "parallel"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _exponents(x: Array, projection: Array) -> Array:
    """w_m.x - |x|^2/2 for x divided by D^(1/4), (B, H, L, M)."""
    fourth = max(x.shape[3], 1) ** -0.25
    scaled = x * np.asarray(fourth, x.dtype)
    return scaled @ projection.T - 0.5 * np.square(scaled).sum(axis=3, keepdims=True)


@register(
    "performer_attention", backend="numpy", name="numpy.performer", dtypes=DTYPES,
    description="FAVOR+, all weights at once, stabilised",
)  # fmt: skip
def parallel(q: Array, k: Array, v: Array, projection: Array, *, causal: bool = False, eps: float = 1e-6) -> Array:
    """Positive features, a stabiliser for each query and one for the keys of each head (Choromanski et al. 2021, arXiv:2009.14794)."""
    dtype = working_dtype(q)
    rows = projection.astype(dtype)
    of_queries, of_keys = _exponents(q.astype(dtype), rows), _exponents(k.astype(dtype), rows)
    queries = np.exp(of_queries - of_queries.max(axis=3, keepdims=True)) / np.sqrt(dtype.type(len(rows)))
    keys = np.exp(of_keys - of_keys.max(axis=(2, 3), keepdims=True, initial=-np.inf)) / np.sqrt(dtype.type(len(rows)))
    weights = queries @ keys.swapaxes(2, 3)
    if causal:
        weights = np.tril(weights)
    return quotient(weights @ v.astype(dtype), weights.sum(axis=3, keepdims=True), eps).astype(q.dtype)


@register(
    "performer_attention", backend="numpy", name="numpy.performer_chunked", dtypes=DTYPES, tunables={"chunk_size": block_sizes},
    description="FAVOR+, a state of M x Dv numbers, chunk by chunk",
)  # fmt: skip
def chunked(q: Array, k: Array, v: Array, projection: Array, *, causal: bool = False, eps: float = 1e-6, chunk_size: int = 64) -> Array:
    """Linear in the length. The common factor of features and sums is put back into eps, so that eps weighs what it says."""
    dtype = working_dtype(q)
    rows = projection.astype(dtype)
    of_queries, of_keys = _exponents(q.astype(dtype), rows), _exponents(k.astype(dtype), rows)
    shift_q = of_queries.max(axis=3, keepdims=True)
    shift_k = of_keys.max(axis=(2, 3), keepdims=True, initial=-np.inf)
    queries, keys = np.exp(of_queries - shift_q), np.exp(of_keys - shift_k)
    values = np.concatenate([v.astype(dtype), np.ones((*v.shape[:3], 1), dtype)], axis=3)
    if causal:
        sums = np.empty(values.shape, dtype)
        for part, found in state_sums(queries, keys, values, chunk_size):
            sums[:, :, part] = found
    else:
        sums = queries @ (keys.swapaxes(2, 3) @ values)
    if q.shape[2] == 0:
        return np.zeros(v.shape, q.dtype)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        guard = np.exp(-(shift_q + shift_k)) * np.asarray(eps * len(rows), dtype) if eps else np.zeros_like(shift_q)
        return (sums[..., :-1] / (sums[..., -1:] + guard)).astype(q.dtype)
