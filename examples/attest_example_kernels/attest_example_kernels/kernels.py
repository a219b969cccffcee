"""Attention over tiles of keys, with a running maximum and a running sum (Milakov and Gimelshein 2018, arXiv:1805.02867)."""

from __future__ import annotations

import numpy as np

from conformance import block_sizes, register

__all__ = ["tiled"]


@register(
    "attention", backend="numpy", name="example.tiled", dtypes=("float32", "float64"), tunables={"block_k": block_sizes},
    description="somebody else's tiles of keys",
)
def tiled(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, causal: bool = False, scale: float | None = None, block_k: int = 64
) -> np.ndarray:
    """Attention of queries (b, h, l, d) over keys (b, g, s, d) and values (b, g, s, e), h a multiple of g; a row without keys is 0.

    Args:
        q, k, v: floats of 4 or 8 bytes, in which everything is computed.
        causal: whether query i sees keys up to i + s - l only.
        scale: of the logits; 1 / sqrt(d) by default.
        block_k: keys in a tile.
    """
    batch, heads, queries, width = q.shape
    shared, keys = k.shape[1:3]
    scaled = q * q.dtype.type(width**-0.5 if scale is None else scale)
    grouped = scaled.reshape(batch, shared, heads // shared, queries, width)
    largest = np.full(grouped.shape[:-1], -np.inf, q.dtype)
    total = np.zeros_like(largest)
    out = np.zeros((*largest.shape, v.shape[3]), q.dtype)
    last = np.arange(queries) + keys - queries
    for start in range(0, keys, block_k):
        tile = slice(start, start + block_k)
        logits = np.einsum("bghld,bgsd->bghls", grouped, k[:, :, tile], optimize=True)
        if causal:
            seen = np.arange(start, start + logits.shape[-1]) <= last[:, None]
            logits = np.where(seen, logits, q.dtype.type(-np.inf))
        raised = np.maximum(largest, logits.max(axis=-1))
        shift = np.where(np.isfinite(raised), raised, 0)  # a row that has seen no key yet has no maximum to subtract
        weights, kept = np.exp(logits - shift[..., None]), np.exp(largest - shift)
        total = total * kept + weights.sum(axis=-1)
        out = out * kept[..., None] + np.einsum("bghls,bgse->bghle", weights, v[:, :, tile], optimize=True)
        largest = raised
    out /= np.where(total > 0, total, 1)[..., None]
    return out.reshape(batch, heads, queries, v.shape[3])
