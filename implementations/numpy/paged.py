"""A cache in blocks, in NumPy: attention gathered a tile at a time and block by block in splits, and new tokens written.

Shapes: q (B, Hq, D), pages (num_blocks, block_size, Hkv, D | Dv), block_table (B, max_blocks), context_lens (B,) -> (B, Hq, Dv).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from conformance import register
from conformance.registry import block_sizes, split_counts
from implementations.caches import check_cache, check_slots
from implementations.numpy.logits import Array, grouped_matmul, working_dtype
from implementations.numpy.softmax import OnlineSoftmax, log_denominator, merge_states, normalised, row_shift
from implementations.tiling import Window, splits, tiles

__all__ = ["append_by_blocks", "append_by_slots", "paged_blocks", "paged_gathered"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _capped(logits: Array, softcap: float | None) -> Array:
    return logits if softcap is None else float(softcap) * np.tanh(logits / float(softcap))


def _scaled(q: Array, scale: float | None) -> Array:
    return q.astype(working_dtype(q)) * (1 / sqrt(q.shape[-1]) if scale is None else float(scale))


@register(
    "paged_attention",
    backend="numpy",
    name="numpy.paged_gathered",
    dtypes=DTYPES,
    tunables={"block_k": block_sizes},
    description="all sequences at once, a tile of positions gathered from the cache after the other",
)
def paged_gathered(
    q: Array,
    k_pages: Array,
    v_pages: Array,
    block_table: Array,
    context_lens: Array,
    *,
    scale: float | None = None,
    window: Window = None,
    softcap: float | None = None,
    block_k: int = 64,
) -> Array:
    """PagedAttention (Kwon et al. 2023, arXiv:2309.06180) with an online softmax over tiles of positions of every sequence."""
    check_cache(block_table.tolist(), context_lens.tolist(), *k_pages.shape[:2])
    queries = _scaled(q, scale)[:, :, None]
    batch, heads, _, _ = queries.shape
    size, width = k_pages.shape[1], block_table.shape[1]
    first, last = _reach(context_lens, window)
    state = OnlineSoftmax((batch, heads, 1), v_pages.shape[3], np.full((heads, 1, 1), -np.inf, queries.dtype))
    for tile in tiles(slice(0, min(size * width, int(context_lens.max(initial=0)))), block_k):
        place = np.arange(tile.start, tile.stop)
        allowed = (place >= first[:, None]) & (place < last[:, None])  # (B, tile)
        blocks = np.where(allowed, block_table[:, place // size], 0)
        keys, values = (
            np.where(allowed[..., None, None], pages[blocks, place % size], 0).astype(queries.dtype).swapaxes(1, 2)
            for pages in (k_pages, v_pages)
        )
        logits = _capped(grouped_matmul(queries, keys.swapaxes(2, 3)), softcap)
        state.update(np.where(allowed[:, None, None], logits, -np.inf), values)
    return state.result()[0][:, :, 0].astype(q.dtype)


@register(
    "paged_attention",
    backend="numpy",
    name="numpy.paged_blocks",
    dtypes=DTYPES,
    tunables={"num_splits": split_counts},
    description="sequence by sequence and block by block, each split of the context on its own",
)
def paged_blocks(
    q: Array,
    k_pages: Array,
    v_pages: Array,
    block_table: Array,
    context_lens: Array,
    *,
    scale: float | None = None,
    window: Window = None,
    softcap: float | None = None,
    num_splits: int = 4,
) -> Array:
    """PagedAttention in splits of each context, whose parts are merged by their lse, as flash-decoding does."""
    check_cache(block_table.tolist(), context_lens.tolist(), *k_pages.shape[:2])
    queries, size, group = _scaled(q, scale), k_pages.shape[1], q.shape[1] // k_pages.shape[2]
    out = np.zeros((*q.shape[:2], v_pages.shape[3]), q.dtype)
    for sequence, (first, last) in enumerate(zip(*(x.tolist() for x in _reach(context_lens, window)), strict=True)):
        rows = queries[sequence].reshape(k_pages.shape[2], group, -1)  # (Hkv, group, D)
        nothing = np.zeros((*rows.shape[:2], out.shape[2]), rows.dtype), np.full(rows.shape[:2], -np.inf, rows.dtype)
        first_block = first // size
        count = max(-(-last // size) - first_block, 0) if last > first else 0

        # The places of each block that are read, block by block.
        places = [
            (int(block_table[sequence, index]), slice(max(first - index * size, 0), min(last - index * size, size)))
            for index in range(first_block, first_block + count)
        ]
        parts = (_part(rows, k_pages, v_pages, places[split], softcap) for split in splits(count, num_splits))
        out[sequence] = merge_states(parts, nothing)[0].reshape(q.shape[1], -1).astype(q.dtype)
    return out


def _part(rows: Array, k_pages: Array, v_pages: Array, places: list[tuple[int, slice]], softcap: float | None) -> tuple[Array, Array]:
    """Attention of grouped queries (Hkv, group, D) to some places of some blocks: (Hkv, group, Dv), and its lse."""
    maximum, total = np.full(rows.shape[:2], -np.inf, rows.dtype), np.zeros(rows.shape[:2], rows.dtype)
    weighted = np.zeros((*rows.shape[:2], v_pages.shape[3]), rows.dtype)
    for block, within in places:
        keys, values = (pages[block, within].astype(rows.dtype).swapaxes(0, 1) for pages in (k_pages, v_pages))  # (Hkv, n, width)
        logits = _capped(rows @ keys.swapaxes(1, 2), softcap)
        highest = np.maximum(maximum, logits.max(axis=-1))
        weights, decay = np.exp(logits - highest[..., None]), np.exp(maximum - highest)
        maximum, total = highest, total * decay + weights.sum(axis=-1)
        weighted = weighted * decay[..., None] + weights @ values
    return normalised(weighted, total[..., None]), log_denominator(row_shift(maximum), total)


def _reach(context_lens: Array, window: Window) -> tuple[Array, Array]:
    """The first position that each query reads, and the one after the last, (B,)."""
    left = None if window is None else window[0]
    first = np.zeros_like(context_lens) if left is None else np.maximum(context_lens - 1 - left, 0)
    return first, context_lens


@register("append_to_pages", backend="numpy", name="numpy.append_by_slots", dtypes=DTYPES, description="one assignment to flat slots")
def append_by_slots(k: Array, v: Array, k_pages: Array, v_pages: Array, slots: Array) -> tuple[Array, Array]:
    """The cache as a list of places, some of which are assigned to."""
    check_slots(slots.tolist(), k_pages.shape[0] * k_pages.shape[1])
    kept = slots >= 0
    new = []
    for rows, pages in ((k, k_pages), (v, v_pages)):
        places = pages.reshape(-1, *pages.shape[2:]).copy()
        places[slots[kept]] = rows[kept]
        new.append(places.reshape(pages.shape))
    return new[0], new[1]


@register("append_to_pages", backend="numpy", name="numpy.append_by_blocks", dtypes=DTYPES, description="token by token, into its block")
def append_by_blocks(k: Array, v: Array, k_pages: Array, v_pages: Array, slots: Array) -> tuple[Array, Array]:
    """As a kernel of one program a token writes it."""
    count, size = k_pages.shape[:2]
    check_slots(slots.tolist(), count * size)
    keys, values = np.array(k_pages), np.array(v_pages)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            block, offset = divmod(slot, size)
            keys[block, offset], values[block, offset] = k[token], v[token]
    return keys, values
