"""Chebyshev attention in NumPy: by Clenshaw's recurrence over all logits, and by the forward recurrence over tiles.

Shapes: q (B, H, Lq, D), k (B, H, Lk, D), v (B, H, Lk, Dv) -> (B, H, Lq, Dv).
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.polynomial import chebyshev

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.logits import Array, working_dtype
from implementations.tiling import tiles

__all__ = ["chebyshev_direct", "chebyshev_tiled"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
Domain = tuple[float, float]


def _coefficients(degree: int, domain: Domain, dtype: np.dtype) -> Array:
    low, high = domain
    middle, half = (low + high) / 2, (high - low) / 2
    made: Array = chebyshev.Chebyshev.interpolate(lambda t: np.exp(half * t + middle), degree).coef
    return made.astype(dtype)


def _unit(logits: Array, domain: Domain) -> Array:
    """Logits clipped to the domain and mapped to [-1, 1]."""
    low, high = (logits.dtype.type(end) for end in domain)
    return (np.clip(logits, low, high) - (low + high) / 2) / ((high - low) / 2)


def _divided(weighed: Array, total: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return weighed / total


@register(
    "chebyshev_attention", backend="numpy", name="numpy.chebyshev", dtypes=DTYPES, description="Clenshaw's recurrence over all logits"
)
def chebyshev_direct(q: Array, k: Array, v: Array, *, degree: int, domain: Domain, scale: float | None = None) -> Array:
    """All weights at once by Clenshaw's recurrence (Clenshaw 1955, Math. Comp. 9, 118)."""
    dtype = working_dtype(q)
    if k.shape[2] == 0:
        return np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    factor = dtype.type(1 / sqrt(max(q.shape[3], 1)) if scale is None else scale)
    t = _unit(q.astype(dtype) @ k.astype(dtype).swapaxes(2, 3) * factor, domain)
    coefficients = _coefficients(degree, domain, dtype)
    after, latest = np.zeros_like(t), np.zeros_like(t)
    for coefficient in coefficients[:0:-1]:
        after, latest = latest, coefficient + 2 * t * latest - after
    weights = coefficients[0] + t * latest - after
    return _divided(weights @ v.astype(dtype), weights.sum(axis=3, keepdims=True)).astype(q.dtype)


@register(
    "chebyshev_attention", backend="numpy", name="numpy.chebyshev_tiled", dtypes=DTYPES, tunables={"block_k": block_sizes},
    description="T_k one after another, a tile of keys at a time",
)  # fmt: skip
def chebyshev_tiled(q: Array, k: Array, v: Array, *, degree: int, domain: Domain, scale: float | None = None, block_k: int = 128) -> Array:
    """The polynomials T_k by their recurrence; sums over tiles of keys need no rescaling, since there is no maximum."""
    dtype = working_dtype(q)
    if k.shape[2] == 0:
        return np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    queries = q.astype(dtype) * dtype.type(1 / sqrt(max(q.shape[3], 1)) if scale is None else scale)
    coefficients = _coefficients(degree, domain, dtype)
    weighed, total = np.zeros((*q.shape[:3], v.shape[3]), dtype), np.zeros((*q.shape[:3], 1), dtype)
    for tile in tiles(slice(0, k.shape[2]), block_k):
        t = _unit(queries @ k[:, :, tile].astype(dtype).swapaxes(2, 3), domain)
        before, latest = np.ones_like(t), t
        weights = np.full_like(t, coefficients[0])
        for coefficient in coefficients[1:]:
            weights += coefficient * latest
            before, latest = latest, 2 * t * latest - before
        weighed += weights @ v[:, :, tile].astype(dtype)
        total += weights.sum(axis=3, keepdims=True)
    return _divided(weighed, total).astype(q.dtype)
