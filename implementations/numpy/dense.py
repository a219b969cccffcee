"""Dense attention in NumPy: plain, the two loop orders of FlashAttention, and split-K.

Every kernel is vectorised over batch, heads and tile, reads strided views as they are, and computes in float32 (in float64
for float64) whatever it is given. Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv).
The keyword options are those of the method `attention`; blocks and splits are tunables and never change the meaning.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance import register
from conformance.registry import block_sizes, split_counts
from implementations.numpy.logits import Array, Logits, grouped_matmul, working_dtype
from implementations.numpy.softmax import OnlineSoftmax, log_denominator, merge_states, normalised, row_shift, sink_column
from implementations.threads import for_each
from implementations.tiling import Window, splits, tiles

__all__ = [
    "flash",
    "flash2",
    "flash2_with_lse",
    "merge",
    "split_k",
    "split_k_with_lse",
    "standard",
    "standard_with_lse",
]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TILES = {"block_q": block_sizes, "block_k": block_sizes}
SPLITS = {"num_splits": split_counts, "block_k": block_sizes}


def _standard(logits: Logits, v: Array, sinks: Array | None) -> tuple[Array, Array]:
    """All logits at once: normalise the weights, then weigh the values."""
    _, _, queries, keys = logits.shape
    scores = logits.tile(slice(0, queries), slice(0, keys))
    sink = sink_column(sinks, logits)
    maximum = np.maximum(scores.max(axis=-1, keepdims=True, initial=-np.inf), sink)
    shift = row_shift(maximum)
    weights = np.exp(scores - shift)
    total = weights.sum(axis=-1, keepdims=True) + np.exp(sink - shift)
    out = grouped_matmul(normalised(weights, total), v.astype(logits.dtype, copy=False))
    return out, log_denominator(maximum, total)[..., 0]


def _flash(logits: Logits, v: Array, sinks: Array | None, block_q: int, block_k: int) -> Array:
    """Keys outer, queries inner: every query's state stays in memory, and its output is normalised after each tile (Algorithm 1)."""
    batch, heads, queries, keys = logits.shape
    v = v.astype(logits.dtype, copy=False)
    maximum = np.broadcast_to(sink_column(sinks, logits), (batch, heads, queries, 1)).copy()
    total = np.exp(maximum - row_shift(maximum))
    out = np.zeros((batch, heads, queries, v.shape[3]), logits.dtype)
    for key_tile in tiles(slice(0, keys), block_k):
        for query_tile in tiles(logits.band.queries_of(key_tile), block_q):
            rows = np.s_[:, :, query_tile]
            scores = logits.tile(query_tile, key_tile)
            highest = np.maximum(maximum[rows], scores.max(axis=-1, keepdims=True))
            shift = row_shift(highest)
            weights = np.exp(scores - shift)
            kept = np.exp(maximum[rows] - shift) * total[rows]
            total[rows] = kept + weights.sum(axis=-1, keepdims=True)
            out[rows] = normalised(kept * out[rows] + grouped_matmul(weights, v[:, :, key_tile]), total[rows])
            maximum[rows] = highest
    return out


def _flash2(logits: Logits, v: Array, sinks: Array | None, block_q: int, block_k: int) -> tuple[Array, Array]:
    """Queries outer, keys inner: each tile of queries is finished by itself, on any core, and normalised once."""
    batch, heads, queries, keys = logits.shape
    v = v.astype(logits.dtype, copy=False)
    sink = sink_column(sinks, logits)
    out = np.empty((batch, heads, queries, v.shape[3]), logits.dtype)
    lse = np.empty((batch, heads, queries), logits.dtype)

    def finish(query_tile: slice) -> None:
        state = OnlineSoftmax((batch, heads, query_tile.stop - query_tile.start), v.shape[3], sink)
        for key_tile in tiles(logits.band.keys_of(query_tile), block_k):
            state.update(logits.tile(query_tile, key_tile), v[:, :, key_tile])
        out[:, :, query_tile], lse[:, :, query_tile] = state.result()

    for_each([*tiles(slice(0, queries), block_q)], finish, batch * heads * queries * keys)
    return out, lse


def _split_k(logits: Logits, v: Array, sinks: Array | None, num_splits: int, block_k: int) -> tuple[Array, Array]:
    """Flash-decoding: each split of the keys is attended to on its own; the normalised parts are merged by their lse."""
    batch, heads, queries, keys = logits.shape
    v = v.astype(logits.dtype, copy=False)
    no_sink = sink_column(None, logits)

    def parts() -> Iterator[tuple[Array, Array]]:
        for part in splits(keys, num_splits):
            state = OnlineSoftmax((batch, heads, queries), v.shape[3], no_sink)
            for key_tile in tiles(part, block_k):
                state.update(logits.tile(slice(0, queries), key_tile), v[:, :, key_tile])
            yield state.result()

    # The sink joins here, once, and not in every split.
    sink = np.broadcast_to(sink_column(sinks, logits)[..., 0], (batch, heads, queries))
    return merge_states(parts(), empty=(np.zeros((batch, heads, queries, v.shape[3]), logits.dtype), sink))


@register("attention", backend="numpy", name="numpy.standard", dtypes=DTYPES, description="all logits at once, softmax, times the values")
def standard(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
) -> Array:
    """Plain softmax attention over the whole matrix of logits (Vaswani et al. 2017, arXiv:1706.03762)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, _ = _standard(logits, v, sinks)
    return out.astype(q.dtype)


@register(
    "attention",
    backend="numpy",
    name="numpy.flash",
    dtypes=DTYPES,
    tunables=TILES,
    description="FlashAttention: keys outer, normalised after each tile",
)
def flash(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    block_q: int = 256,
    block_k: int = 256,
) -> Array:
    """FlashAttention (Dao et al. 2022, arXiv:2205.14135): keys in the outer loop."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    return _flash(logits, v, sinks, block_q, block_k).astype(q.dtype)


@register(
    "attention",
    backend="numpy",
    name="numpy.flash2",
    dtypes=DTYPES,
    tunables=TILES,
    description="FlashAttention-2: queries outer, normalised once",
)
def flash2(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    block_q: int = 256,
    block_k: int = 256,
) -> Array:
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691): queries in the outer loop."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, _ = _flash2(logits, v, sinks, block_q, block_k)
    return out.astype(q.dtype)


@register(
    "attention",
    backend="numpy",
    name="numpy.split_k",
    dtypes=DTYPES,
    tunables=SPLITS,
    description="flash-decoding: splits of the keys, merged by their lse",
)
def split_k(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    num_splits: int = 4,
    block_k: int = 256,
) -> Array:
    """Split-K attention, as flash-decoding does for few queries and many keys."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, _ = _split_k(logits, v, sinks, num_splits, block_k)
    return out.astype(q.dtype)


@register(
    "attention_with_lse",
    backend="numpy",
    name="numpy.standard_with_lse",
    dtypes=DTYPES,
    description="all logits at once, with the log of the denominator",
)
def standard_with_lse(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
) -> tuple[Array, Array]:
    """`standard`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, lse = _standard(logits, v, sinks)
    return out.astype(q.dtype), lse


@register(
    "attention_with_lse",
    backend="numpy",
    name="numpy.flash2_with_lse",
    dtypes=DTYPES,
    tunables=TILES,
    description="FlashAttention-2, with the log of the denominator",
)
def flash2_with_lse(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    block_q: int = 256,
    block_k: int = 256,
) -> tuple[Array, Array]:
    """`flash2`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, lse = _flash2(logits, v, sinks, block_q, block_k)
    return out.astype(q.dtype), lse


@register(
    "attention_with_lse",
    backend="numpy",
    name="numpy.split_k_with_lse",
    dtypes=DTYPES,
    tunables=SPLITS,
    description="flash-decoding, with the log of the denominator",
)
def split_k_with_lse(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    num_splits: int = 4,
    block_k: int = 256,
) -> tuple[Array, Array]:
    """`split_k`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, lse = _split_k(logits, v, sinks, num_splits, block_k)
    return out.astype(q.dtype), lse


@register(
    "merge_attention_states",
    backend="numpy",
    name="numpy.merge",
    dtypes=DTYPES,
    description="parts folded in one after the other, as in a ring",
)
def merge(outs: Array, lses: Array) -> tuple[Array, Array]:
    """Combine the parts outs (N, B, H, L, Dv), lses (N, B, H, L), one after the other."""
    dtype = working_dtype(outs)
    empty = np.zeros(outs.shape[1:], dtype), np.full(lses.shape[1:], -np.inf, dtype)
    parts = zip(outs.astype(dtype), lses.astype(dtype), strict=True)
    out, lse = merge_states(parts, empty)
    return out.astype(outs.dtype), lse
