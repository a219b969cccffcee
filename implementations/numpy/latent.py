"""Latent attention (MLA) in NumPy: the expanded form, and the absorbed one that a decoder uses.

Shapes: q_nope (B, H, Lq, Dn), q_rope (B, H, Lq, Dr), c_kv (B, Lk, R), k_rope (B, Lk, Dr), w_uk (H, R, Dn), w_uv (H, R, Dv)
-> (B, H, Lq, Dv).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.logits import Array, Logits, working_dtype
from implementations.numpy.softmax import OnlineSoftmax, normalised, row_shift, sink_column
from implementations.tiling import tiles

__all__ = ["latent_absorbed", "latent_expanded"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _scale(q_nope: Array, q_rope: Array, scale: float | None) -> float:
    return 1 / sqrt(q_nope.shape[3] + q_rope.shape[3]) if scale is None else float(scale)


@register(
    "latent_attention", backend="numpy", name="numpy.latent", dtypes=DTYPES,
    description="keys and values of every head expanded, both parts of a key as one row",
)  # fmt: skip
def latent_expanded(
    q_nope: Array,
    q_rope: Array,
    c_kv: Array,
    k_rope: Array,
    w_uk: Array,
    w_uv: Array,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Array:
    """Plain attention with keys of width Dn + Dr (DeepSeek-AI 2024, eq. 9-19, arXiv:2405.04434)."""
    dtype, heads = working_dtype(q_nope), q_nope.shape[1]
    keys = np.einsum("bsc,hcd->bhsd", c_kv.astype(dtype), w_uk.astype(dtype))
    values = np.einsum("bsc,hce->bhse", c_kv.astype(dtype), w_uv.astype(dtype))
    shared = np.repeat(k_rope.astype(dtype)[:, None], heads, axis=1)
    queries = np.concatenate([q_nope, q_rope], axis=3)
    factor = _scale(q_nope, q_rope, scale)
    logits = Logits(queries, np.concatenate([keys, shared], axis=3), None, None, causal, None, None, factor)
    scores = logits.tile(slice(0, logits.shape[2]), slice(0, logits.shape[3]))
    weights = np.exp(scores - row_shift(scores.max(axis=-1, keepdims=True, initial=-np.inf)))
    return normalised(weights @ values, weights.sum(axis=-1, keepdims=True)).astype(q_nope.dtype)


@register(
    "latent_attention", backend="numpy", name="numpy.latent_absorbed", dtypes=DTYPES,
    tunables={"block_q": block_sizes, "block_k": block_sizes},
    description="absorbed: queries of latent width against the cache itself, tile by tile",
)  # fmt: skip
def latent_absorbed(
    q_nope: Array,
    q_rope: Array,
    c_kv: Array,
    k_rope: Array,
    w_uk: Array,
    w_uv: Array,
    *,
    causal: bool = False,
    scale: float | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Array:
    """Multi-query attention over rows of width R + Dr, whose first R elements are the values too."""
    dtype = working_dtype(q_nope)
    queries = np.concatenate([q_nope.astype(dtype) @ w_uk.astype(dtype).swapaxes(1, 2), q_rope.astype(dtype)], axis=3)
    cache = np.concatenate([c_kv, k_rope], axis=2).astype(dtype)[:, None]
    logits = Logits(queries, cache, None, None, causal, None, None, _scale(q_nope, q_rope, scale))
    values = c_kv.astype(dtype)[:, None]
    gathered = np.empty((*q_nope.shape[:3], c_kv.shape[2]), dtype)
    for rows in tiles(slice(0, q_nope.shape[2]), block_q):
        state = OnlineSoftmax((*q_nope.shape[:2], rows.stop - rows.start), c_kv.shape[2], sink_column(None, logits))
        for keys in tiles(logits.band.keys_of(rows), block_k):
            state.update(logits.tile(rows, keys), values[:, :, keys])
        gathered[:, :, rows] = state.result()[0]
    return (gathered @ w_uv.astype(dtype)).astype(q_nope.dtype)
