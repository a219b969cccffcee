"""Linformer attention in NumPy.

Shapes: q (B, H, Lq, D), k (B, H, Lk, D), v (B, H, Lk, Dv), e and f (Lp, Lk) -> (B, H, Lq, Dv).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.logits import Array, working_dtype
from implementations.tiling import tiles

__all__ = ["linformer", "linformer_tiled"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TILES = {"block_k": block_sizes, "block_q": block_sizes}


@register(
    "linformer_attention", backend="numpy", name="numpy.linformer", dtypes=DTYPES, description="project, then plain softmax attention"
)
def linformer(q: Array, k: Array, v: Array, e: Array, f: Array, *, scale: float | None = None) -> Array:
    """Keys and values are projected along the sequence by one contraction each (Wang et al. 2020, eq. 7, arXiv:2006.04768)."""
    dtype = working_dtype(q)
    keys = np.einsum("ps,bhsd->bhpd", e.astype(dtype), k.astype(dtype))
    values = np.einsum("ps,bhsw->bhpw", f.astype(dtype), v.astype(dtype))
    logits = q.astype(dtype) @ keys.swapaxes(2, 3) * dtype.type(1 / sqrt(max(q.shape[3], 1)) if scale is None else scale)
    weights = np.exp(logits - logits.max(axis=3, keepdims=True))
    return (weights / weights.sum(axis=3, keepdims=True) @ values).astype(q.dtype)


@register(
    "linformer_attention", backend="numpy", name="numpy.linformer_tiled", dtypes=DTYPES, tunables=TILES,
    description="projected a tile of keys at a time, then tiles of queries",
)  # fmt: skip
def linformer_tiled(
    q: Array, k: Array, v: Array, e: Array, f: Array, *, scale: float | None = None, block_q: int = 64, block_k: int = 64
) -> Array:
    """The projections add up over tiles of keys, the scale is part of the projected keys, and queries come in tiles."""
    dtype = working_dtype(q)
    keys = np.zeros((*k.shape[:2], e.shape[0], k.shape[3]), dtype)
    values = np.zeros((*v.shape[:2], f.shape[0], v.shape[3]), dtype)
    for tile in tiles(slice(0, k.shape[2]), block_k):
        keys += e[:, tile].astype(dtype) @ k[:, :, tile].astype(dtype)
        values += f[:, tile].astype(dtype) @ v[:, :, tile].astype(dtype)
    keys *= dtype.type(1 / sqrt(max(q.shape[3], 1)) if scale is None else scale)
    out = np.empty((*q.shape[:3], v.shape[3]), q.dtype)
    for rows in tiles(slice(0, q.shape[2]), block_q):
        logits = q[:, :, rows].astype(dtype) @ keys.swapaxes(2, 3)
        weights = np.exp(logits - logits.max(axis=3, keepdims=True))
        out[:, :, rows] = weights @ values / weights.sum(axis=3, keepdims=True)
    return out
