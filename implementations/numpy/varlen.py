"""Attention over packed sequences in NumPy: sequence by sequence in tiles, and as one padded batch of chunks of queries.

Shapes: q (total_q, Hq, D), k and v (total_k, Hkv, D | Dv), cumulative lengths (B + 1,) -> (total_q, Hq, Dv).
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.caches import check_edges
from implementations.numpy.logits import Array, Logits, grouped_matmul, working_dtype
from implementations.numpy.softmax import OnlineSoftmax, normalised, row_shift
from implementations.tiling import Window, tiles

__all__ = ["varlen_chunks", "varlen_padded"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


@register(
    "varlen_attention",
    backend="numpy",
    name="numpy.varlen_chunks",
    dtypes=DTYPES,
    tunables={"block_q": block_sizes, "block_k": block_sizes},
    description="sequence by sequence, in tiles of queries and keys with an online softmax",
)
def varlen_chunks(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens_q: Array,
    cu_seqlens_k: Array,
    *,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Array:
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691) within each sequence."""
    edges_q, edges_k = _edges(q, k, cu_seqlens_q, cu_seqlens_k)
    out = np.empty((*q.shape[:2], v.shape[2]), q.dtype)
    for (first, last), (begin, end) in zip(pairwise(edges_q), pairwise(edges_k), strict=True):
        own = [x[part].swapaxes(0, 1)[None] for x, part in ((q, slice(first, last)), (k, slice(begin, end)), (v, slice(begin, end)))]
        logits = Logits(own[0], own[1], None, None, causal, window, softcap, scale)
        no_sink = np.full((q.shape[1], 1, 1), -np.inf, logits.dtype)
        for rows in tiles(slice(0, last - first), block_q):
            state = OnlineSoftmax((1, q.shape[1], rows.stop - rows.start), v.shape[2], no_sink)
            for columns in tiles(logits.band.keys_of(rows), block_k):
                state.update(logits.tile(rows, columns), own[2][:, :, columns].astype(logits.dtype))
            out[first + rows.start : first + rows.stop] = state.result()[0][0].swapaxes(0, 1).astype(q.dtype)
    return out


@register(
    "varlen_attention",
    backend="numpy",
    name="numpy.varlen_padded",
    dtypes=DTYPES,
    tunables={"block_q": block_sizes},
    description="all sequences padded to the longest, a chunk of the queries of each at a time",
)
def varlen_padded(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens_q: Array,
    cu_seqlens_k: Array,
    *,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    block_q: int = 64,
) -> Array:
    """Sequences of one batch under a mask of padding; only the rows that hold a query are written back."""
    edges_q, edges_k = (np.asarray(edges) for edges in _edges(q, k, cu_seqlens_q, cu_seqlens_k))
    dtype, out = working_dtype(q), np.empty((*q.shape[:2], v.shape[2]), q.dtype)
    lengths_q, lengths_k = np.diff(edges_q), np.diff(edges_k)
    position = np.arange(lengths_k.max(initial=0))
    held = position < lengths_k[:, None]
    where = np.where(held, edges_k[:-1, None] + position, 0)
    keys, values = (np.where(held[..., None, None], x[where], 0).astype(dtype).swapaxes(1, 2) for x in (k, v))
    factor = 1 / sqrt(q.shape[2]) if scale is None else float(scale)
    left, right = window or (None, None)
    for chunk in tiles(slice(0, int(lengths_q.max(initial=0))), block_q):
        row = np.arange(chunk.start, chunk.stop)
        queried = row < lengths_q[:, None]  # (B, chunk)
        tokens = np.where(queried, edges_q[:-1, None] + row, 0)
        logits = grouped_matmul(q[tokens].astype(dtype).swapaxes(1, 2), keys.swapaxes(2, 3)) * factor
        if softcap is not None:
            logits = np.tanh(logits / softcap) * softcap
        ahead = position - (row[:, None] + (lengths_k - lengths_q)[:, None, None])  # (B, chunk, longest)
        allowed = held[:, None] & (ahead <= 0 if causal else True)
        allowed = allowed & (True if left is None else ahead >= -left) & (True if right is None else ahead <= right)
        logits = np.where(allowed[:, None], logits, -np.inf)
        weights = np.exp(logits - row_shift(logits.max(axis=-1, keepdims=True, initial=-np.inf)))
        rows = normalised(grouped_matmul(weights, values), weights.sum(axis=-1, keepdims=True))
        out[tokens[queried]] = rows.swapaxes(1, 2)[queried].astype(q.dtype)
    return out


def _edges(q: Array, k: Array, cu_seqlens_q: Array, cu_seqlens_k: Array) -> tuple[list[int], list[int]]:
    """The cumulative lengths, checked."""
    edges = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for name, own, total in zip(("cu_seqlens_q", "cu_seqlens_k"), edges, (len(q), len(k)), strict=True):
        check_edges(name, own, total)
    return edges
