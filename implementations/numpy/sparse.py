"""Sparse attention in NumPy: for each block of queries, only the keys that some query of it may read are gathered.

Which those are follows from the pattern, without looking at all pairs of positions; only `pattern_attention`, whose pattern
may be anything, is asked about every key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from conformance import block_sizes, register
from implementations.numpy.logits import Array, working_dtype
from implementations.threads import for_each
from implementations.tiling import tiles

__all__ = ["bigbird", "block_sparse", "fixed", "local_global", "pattern", "strided"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TUNABLES = {"block_q": block_sizes}

# From the positions of some queries (n, 1) to the positions of keys (m,) and which of them each query reads (n, m).
Gather = Callable[[Array], tuple[Array, Array]]


def _attend(q: Array, k: Array, v: Array, scale: float | None, block_q: int, gather: Gather) -> Array:
    """Softmax attention of each block of queries to what `gather` finds for it."""
    batch, heads, queries, width = q.shape
    groups = k.shape[1]
    dtype = working_dtype(q)
    out = np.zeros((batch, groups, heads // groups, queries, v.shape[3]), dtype)
    rows = (q.astype(dtype) * dtype.type(width**-0.5 if scale is None else scale)).reshape(batch, groups, heads // groups, queries, width)
    for start in range(0, queries, block_q):
        positions = np.arange(start, min(start + block_q, queries))
        keys, allowed = gather(positions[:, None])
        if keys.size == 0 or out.size == 0:
            continue
        logits = rows[:, :, :, positions] @ k[:, :, keys].astype(dtype)[:, :, None].swapaxes(-1, -2)
        weights, total = _exponentials(logits, allowed)
        out[:, :, :, positions] = weights @ v[:, :, keys].astype(dtype)[:, :, None] / total
    return out.reshape(batch, heads, queries, v.shape[3]).astype(q.dtype)


def _exponentials(logits: Array, allowed: Array) -> tuple[Array, Array]:
    """Weights of a softmax before they are divided by their sum, and what to divide by; the logits are overwritten."""
    np.copyto(logits, logits.dtype.type(-np.inf), where=~allowed)
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    logits -= np.where(np.isneginf(largest), logits.dtype.type(0), largest)
    np.exp(logits, out=logits)
    total = logits.sum(axis=-1, keepdims=True)
    return logits, np.where(total == 0, total.dtype.type(1), total)


def _between(first: int, last: int, length: int) -> Array:
    return np.arange(max(first, 0), max(min(last + 1, length), max(first, 0)))


@register(
    "local_global_attention", backend="numpy", name="numpy.local_global", dtypes=DTYPES, tunables=TUNABLES,
    description="windows of keys sliced block by block, beside all global keys; global rows apart",
)  # fmt: skip
def local_global(
    q: Array, k: Array, v: Array, *, window: int, global_tokens: Sequence[int], causal: bool = False, scale: float | None = None,
    global_self: bool = True, global_rows: bool = True, block_q: int = 64,
) -> Array:  # fmt: skip
    """Keys are views, and the mask of a window is cut out of one: only what a block computes is ever copied."""
    batch, heads, length, width = q.shape
    groups, dtype = k.shape[1], working_dtype(q)
    special = np.unique(np.asarray(global_tokens, dtype=np.int64))
    hidden = np.zeros(length, dtype=bool)  # global keys are not among those of a window
    hidden[special] = True
    reach = min(window, length)
    # Query i of a block stands at column i + reach of the keys from `reach` before the block on.
    columns, offsets = min(block_q, length), np.arange(min(block_q, length) + 2 * reach)
    ahead = offsets - np.arange(columns)[:, None] - reach
    band = (np.abs(ahead) <= reach) & ((ahead <= 0) | (not causal))
    positions = np.arange(length)[:, None]
    shown = (special <= positions) | (not causal)  # (L, number of global keys)
    if not global_self:
        shown &= special != positions
    rows = (q.astype(dtype) * dtype.type(width**-0.5 if scale is None else scale)).reshape(batch, groups, heads // groups, length, width)
    keys, values = (x.astype(dtype, copy=False)[:, :, None] for x in (k, v))
    far_keys, far_values = keys[:, :, :, special], values[:, :, :, special]
    out = np.empty((batch, groups, heads // groups, length, v.shape[3]), q.dtype)

    def attend(block: slice) -> None:
        near = slice(max(block.start - reach, 0), min(block.stop + reach, length))
        own = rows[:, :, :, block]
        logits = np.concatenate([own @ keys[:, :, :, near].swapaxes(-1, -2), own @ far_keys.swapaxes(-1, -2)], axis=-1)
        start, count = near.start - block.start + reach, near.stop - near.start
        allowed = np.concatenate([band[: block.stop - block.start, start : start + count] & ~hidden[near], shown[block]], axis=1)
        weights, total = _exponentials(logits, allowed)
        out[:, :, :, block] = (weights[..., :count] @ values[:, :, :, near] + weights[..., count:] @ far_values) / total

    def attend_globally(block: slice) -> None:
        own = special[block, None]
        allowed = (own >= positions.T) | (not causal)
        if not global_self:
            allowed &= own != positions.T
        weights, total = _exponentials(rows[:, :, :, own[:, 0]] @ keys.swapaxes(-1, -2), allowed)
        out[:, :, :, own[:, 0]] = weights @ values / total

    for_each([*tiles(slice(0, length), block_q)], attend, batch * heads * length * (2 * reach + columns))
    if global_rows:
        for_each([*tiles(slice(0, special.size), block_q)], attend_globally, batch * heads * special.size * length)
    return out.reshape(batch, heads, length, v.shape[3])


@register(
    "strided_attention", backend="numpy", name="numpy.strided", dtypes=DTYPES, tunables=TUNABLES,
    description="the last keys and every stride-th before, gathered for each residue of the position",
)  # fmt: skip
def strided(q: Array, k: Array, v: Array, *, stride: int, scale: float | None = None, block_q: int = 128) -> Array:
    """Queries a stride apart read the same far keys, so they are taken together."""
    length = q.shape[2]
    out = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for residue in range(min(stride, length)):
        rows = np.arange(residue, length, stride)

        def gather(index: Array, rows: Array = rows) -> tuple[Array, Array]:
            positions = rows[index]
            first, last = int(positions[0, 0]), int(positions[-1, 0])
            keys = np.union1d(np.arange(rows[0], last + 1, stride), _between(first - stride + 1, last, length))
            behind = positions - keys
            return keys, (behind >= 0) & ((behind < stride) | (behind % stride == 0))

        out[:, :, rows] = _attend(q[:, :, rows], k, v, scale, max(block_q // stride, 1), gather)
    return out


@register(
    "fixed_attention", backend="numpy", name="numpy.fixed", dtypes=DTYPES, tunables=TUNABLES,
    description="the blocks of a tile of queries, and the summaries of those before",
)  # fmt: skip
def fixed(q: Array, k: Array, v: Array, *, stride: int, c: int = 1, scale: float | None = None, block_q: int = 128) -> Array:
    """The keys from the start of the first query's block on, after the last c of every earlier block."""

    def gather(positions: Array) -> tuple[Array, Array]:
        start = int(positions[0, 0]) // stride * stride
        ends = np.arange(stride, start + 1, stride)
        summaries = (ends[:, None] - np.arange(c, 0, -1)).reshape(-1)
        keys = np.concatenate([summaries, np.arange(start, int(positions[-1, 0]) + 1)])
        same = keys // stride == positions // stride
        return keys, (keys <= positions) & (same | (keys % stride >= stride - c))

    return _attend(q, k, v, scale, block_q, gather)


@register(
    "bigbird_attention", backend="numpy", name="numpy.bigbird", dtypes=DTYPES,
    description="the blocks of keys of each block of queries, gathered",
)  # fmt: skip
def bigbird(
    q: Array, k: Array, v: Array, *, block_size: int, window_blocks: int, global_blocks: int, random_blocks: Array,
    scale: float | None = None,
) -> Array:  # fmt: skip
    """One block of queries at a time: its window, the global and its random blocks, each block once."""
    length, count = q.shape[2], random_blocks.shape[0]
    reach = window_blocks // 2

    def gather(positions: Array) -> tuple[Array, Array]:
        block = int(positions[0, 0]) // block_size
        everything = range(count) if block < global_blocks else range(min(global_blocks, count))
        chosen = {*everything, *range(max(block - reach, 0), min(block + reach + 1, count)), *random_blocks[block].tolist()}
        tokens = (np.array(sorted(chosen))[:, None] * block_size + np.arange(block_size)).reshape(-1)
        keys = tokens[tokens < length]
        return keys, np.ones((len(positions), len(keys)), dtype=bool)

    return _attend(q, k, v, scale, block_size, gather)


@register(
    "block_sparse_attention", backend="numpy", name="numpy.block_sparse", dtypes=DTYPES,
    description="the blocks of keys that the mask allows, head by head",
)  # fmt: skip
def block_sparse(
    q: Array, k: Array, v: Array, *, block_mask: Array, block_q: int, block_k: int, causal: bool = False, scale: float | None = None
) -> Array:
    """Heads may read different blocks, so each is attended to by itself."""
    batch, heads, queries, _ = q.shape
    keys_before, length = k.shape[2] - queries, k.shape[2]
    mask = np.broadcast_to(block_mask, (batch, heads, *block_mask.shape[2:]))
    out = np.zeros((batch, heads, queries, v.shape[3]), q.dtype)
    for b, h in np.ndindex(batch, heads):
        group = h // (heads // k.shape[1])

        def gather(positions: Array, rows: Array = mask[b, h]) -> tuple[Array, Array]:
            chosen = np.flatnonzero(rows[int(positions[0, 0]) // block_q])
            tokens = (chosen[:, None] * block_k + np.arange(block_k)).reshape(-1)
            keys = tokens[tokens < length]
            return keys, (keys <= positions + keys_before) | (not causal)

        one = slice(b, b + 1), slice(group, group + 1)
        out[b, h] = _attend(q[b : b + 1, h : h + 1], k[one], v[one], scale, block_q, gather)[0, 0]
    return out


@register(
    "pattern_attention", backend="numpy", name="numpy.pattern", dtypes=DTYPES, tunables=TUNABLES,
    description="the keys that some query of a block may read, gathered",
)  # fmt: skip
def pattern(q: Array, k: Array, v: Array, *, pattern: Callable[[Any, Any], Any], scale: float | None = None, block_q: int = 128) -> Array:
    """The pattern is asked about one block of queries at a time; keys that none of them reads are left out."""
    everything = np.arange(k.shape[2])

    def gather(positions: Array) -> tuple[Array, Array]:
        allowed = np.broadcast_to(np.asarray(pattern(positions, everything[None, :]), dtype=bool), (len(positions), len(everything)))
        keys = np.flatnonzero(allowed.any(axis=0))
        return keys, allowed[:, keys]

    return _attend(q, k, v, scale, block_q, gather)
