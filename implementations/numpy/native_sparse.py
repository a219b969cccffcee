"""Native sparse attention in NumPy: blocks of queries, each with the windows, summaries and gathered blocks that it reads.

No matrix of all queries and keys is formed. Importance comes from sums of the compressed weights by stride, which are then
added up over each selection block; the blocks are chosen by a partial sort and gathered key by key.
"""

from __future__ import annotations

import numpy as np

from conformance import block_sizes, register
from implementations.numpy.logits import Array, working_dtype

__all__ = ["native_sparse", "native_sparse_forced"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TUNABLES = {"block_q": block_sizes}


def _softmax(logits: Array, allowed: Array) -> Array:
    """Weights over the last axis; zeros in a row that may read nothing."""
    logits = np.where(allowed, logits, -np.inf)
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isneginf(largest), 0, largest))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)


def _summaries(x: Array, count: int, block: int, stride: int, weights: Array | None) -> Array:
    """Weighted sums (B, Hkv, count, width) of the rows of each compressed block."""
    made = np.zeros((*x.shape[:2], count, x.shape[3]), x.dtype)
    for offset in range(block):
        rows = x[:, :, offset : offset + (count - 1) * stride + 1 : stride] if count else x[:, :, :0]
        made += rows / x.dtype.type(block) if weights is None else rows * weights[offset]
    return made


def _importance(weights: Array, blocks: int, block: int, stride: int, select: int) -> Array:
    """From the compressed weights of a group (..., n) to the importance of every selection block (..., blocks).

    A compressed block counts for every stride that it covers, so that a selection block is the sum of its strides.
    """
    per_block = select // stride
    strides = np.zeros((*weights.shape[:-1], blocks * per_block), weights.dtype)
    for offset in range(block // stride):
        reached = min(weights.shape[-1], strides.shape[-1] - offset)
        strides[..., offset : offset + reached] += weights[..., :reached]
    return strides.reshape(*weights.shape[:-1], blocks, per_block).sum(axis=-1)


def _chosen(importance: Array, begun: Array, forced: Array, count: int) -> Array:
    """The blocks (..., at most count) that each row reads, -1 where it reads fewer; of equal ones the first."""
    ranked = np.where(forced, np.inf, np.where(begun, importance, -np.inf))
    order = np.argsort(-ranked, axis=-1, kind="stable")
    kept = max(count, int(forced.sum(axis=-1).max(initial=0)))
    order = order[..., :kept]
    place = np.arange(order.shape[-1])
    reads = np.take_along_axis(begun, order, axis=-1) & ((place < count) | np.take_along_axis(forced, order, axis=-1))
    return np.where(reads, order, -1)


def _selected(rows: Array, k: Array, v: Array, chosen: Array, positions: Array, select: int) -> Array:
    """Attention of each query to the keys of its own blocks, (B, Hkv, R, Q, Dv)."""
    tokens = chosen[..., None] * select + np.arange(select)
    tokens = tokens.reshape(*chosen.shape[:-1], chosen.shape[-1] * select)  # (B, Hkv, Q, count * select)
    reads = np.repeat(chosen >= 0, select, axis=-1) & (tokens <= positions[:, None])
    index = np.where(reads, tokens, 0)
    b, g = np.ogrid[: k.shape[0], : k.shape[1]]
    keys, values = (x[b[..., None, None], g[..., None, None], index] for x in (k, v))  # (B, Hkv, Q, tokens, width)
    logits = np.einsum("bgrqd,bgqtd->bgrqt", rows, keys)
    return np.einsum("bgrqt,bgqte->bgrqe", _softmax(logits, reads[:, :, None]), values)


def _native_sparse(
    q: Array, k: Array, v: Array, gates: Array, compress_weights: Array | None, scale: float | None, block_q: int, *,
    compress_block: int, compress_stride: int, select_block: int, select_count: int, window: int, forced: bool,
) -> Array:  # fmt: skip
    batch, heads, length, width = q.shape
    groups, dtype = k.shape[1], working_dtype(q)
    group = heads // groups
    rows = (q.astype(dtype) * dtype.type(width**-0.5 if scale is None else scale)).reshape(batch, groups, group, length, width)
    gate = gates.astype(dtype).reshape(batch, groups, group, length, 3)
    k, v = k.astype(dtype), v.astype(dtype)
    count, blocks = max((length - compress_block) // compress_stride + 1, 0), -(-length // select_block)
    own_weights = None if compress_weights is None else compress_weights.astype(dtype)
    keys, values = (_summaries(x, count, compress_block, compress_stride, own_weights)[:, :, None] for x in (k, v))
    ends, firsts = np.arange(count) * compress_stride + compress_block - 1, np.arange(blocks) * select_block
    out = np.zeros((*rows.shape[:4], v.shape[3]), dtype)
    for start in range(0, length, block_q):
        positions = np.arange(start, min(start + block_q, length))
        own = rows[:, :, :, positions]
        weights = _softmax(own @ keys.swapaxes(-1, -2), ends <= positions[:, None])
        compressed = weights @ values
        begun = firsts <= positions[:, None]
        last = positions[:, None] // select_block - np.arange(blocks)
        always = begun & ((last == 0) | (last == 1) | (np.arange(blocks) == 0)) if forced else np.zeros_like(begun)
        importance = _importance(weights.sum(axis=2), blocks, compress_block, compress_stride, select_block)
        chosen = _chosen(importance, np.broadcast_to(begun, importance.shape), np.broadcast_to(always, importance.shape), select_count)
        selected = _selected(own, k, v, chosen, positions, select_block)
        near = np.arange(max(start - window + 1, 0), positions[-1] + 1)
        behind = positions[:, None] - near
        windowed = _softmax(own @ k[:, :, None, near].swapaxes(-1, -2), (behind >= 0) & (behind < window)) @ v[:, :, None, near]
        branches = np.stack([compressed, selected, windowed], axis=-1)
        out[:, :, :, positions] = (branches @ gate[:, :, :, positions, :, None])[..., 0]
    return out.reshape(batch, heads, length, v.shape[3]).astype(q.dtype)


@register(
    "native_sparse_attention", backend="numpy", name="numpy.native_sparse", dtypes=DTYPES, tunables=TUNABLES,
    description="summaries, gathered blocks and windows, block by block of queries",
)  # fmt: skip
def native_sparse(
    q: Array, k: Array, v: Array, gates: Array, *, compress_block: int, compress_stride: int, select_block: int, select_count: int,
    window: int, compress_weights: Array | None = None, scale: float | None = None, block_q: int = 64,
) -> Array:  # fmt: skip
    """The choice is free: no block is forced into it."""
    return _native_sparse(
        q, k, v, gates, compress_weights, scale, block_q, compress_block=compress_block, compress_stride=compress_stride,
        select_block=select_block, select_count=select_count, window=window, forced=False,
    )  # fmt: skip


@register(
    "native_sparse_attention", backend="numpy", name="numpy.native_sparse_forced", dtypes=DTYPES, tunables=TUNABLES,
    conventions={"forced_blocks": "first-and-two-local"},
    description="the same, the first and the two nearest blocks always among the chosen",
)  # fmt: skip
def native_sparse_forced(
    q: Array, k: Array, v: Array, gates: Array, *, compress_block: int, compress_stride: int, select_block: int, select_count: int,
    window: int, compress_weights: Array | None = None, scale: float | None = None, block_q: int = 64,
) -> Array:  # fmt: skip
    """As in the experiments of the paper (section 4.1)."""
    return _native_sparse(
        q, k, v, gates, compress_weights, scale, block_q, compress_block=compress_block, compress_stride=compress_stride,
        select_block=select_block, select_count=select_count, window=window, forced=True,
    )  # fmt: skip
