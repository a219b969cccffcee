"""Native sparse attention: summaries of blocks, the blocks that they make look important, and a window, weighed by gates.

Yuan et al. 2025, arXiv:2502.11089, sections 3.2 and 3.3. Which blocks a query selects is a discrete decision, made for each
key/value head by all query heads that share it; see `oracle.readings.decisions`.

Shapes: B batch, Hq query heads, Hkv key/value heads, R = Hq / Hkv, L length, D query/key width, Dv value width, n compressed
blocks, m selection blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.dense import GROUPED, join_heads, split_heads
from oracle.readings.bounded import Bounded
from oracle.readings.decisions import Choice, decide, equal_weights
from oracle.readings.ops import as_operand, as_stored, number, probabilities, shifted_exponentials

__all__ = ["forced_blocks", "native_sparse_attention", "shared_strides"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


def shared_strides(compressed: int, selected: int, compress_block: int, compress_stride: int, select_block: int) -> np.ndarray:
    """How many strides each compressed block shares with each selection block, (n, m).

    Eq. 9 with blocks counted from 1, as the paper does: selection block j adds up the compressed blocks (l'/d) j - m - n for
    0 <= m < l'/d and 0 <= n < l/d, which are those that overlap it, each as often as they share a stride.
    """
    starts, firsts = np.arange(compressed)[:, None] * compress_stride, np.arange(selected)[None, :] * select_block
    shared = np.minimum(starts + compress_block, firsts + select_block) - np.maximum(starts, firsts)
    return np.maximum(shared, 0) // compress_stride


def forced_blocks(length: int, select_block: int, rule: str) -> np.ndarray:
    """Selection blocks that a query reads whatever their importance, bool (L, m)."""
    own, block = np.arange(length)[:, None] // select_block, np.arange(-(-length // select_block))[None, :]
    if rule == "none":
        return np.zeros((length, block.shape[1]), dtype=bool)
    return (block == 0) | (block == own) | (block == own - 1)


def _summaries(x: Array, starts: np.ndarray, block: int, weights: Array | None) -> Array:
    """One row for each compressed block, (B, Hkv, n, width): the mean of its rows, or their weighted sum."""
    rows = np.take(x, starts[:, None] + np.arange(block), axis=2)
    total = np.sum(rows, axis=3) / block if weights is None else np.sum(rows * weights[:, None], axis=3)
    return as_stored(total)


def _weights(scores: Array, allowed: np.ndarray) -> tuple[Array, Array, np.ndarray]:
    """Numerators of the softmax over the allowed keys, their sum (1 where there are none), and where there are none."""
    weights, _ = shifted_exponentials(np.where(allowed, scores, -np.inf))
    weights = as_operand(weights)
    hidden = ~np.any(np.broadcast_to(allowed, scores.shape), axis=-1, keepdims=True)
    return weights, np.where(hidden, 1.0, np.sum(weights, axis=-1, keepdims=True)), hidden


def _attend(scores: Array, allowed: np.ndarray, v: Array) -> Array:
    """Softmax attention (B, Hkv, R, L, Dv) to the allowed keys; zeros where there are none."""
    weights, total, hidden = _weights(scores, allowed)
    return np.where(hidden, 0.0, np.matmul(weights, v[:, :, None]) / total)


def _gated(gate: Array, branch: Array) -> Array:
    """A branch as it joins the output: it may be kept in the operand format before it meets its gate, after that, and in a sum."""
    return as_stored(as_stored(gate * as_stored(branch)))


def _within_hull(selected: Array, v: Array, choice: Choice, tokens: np.ndarray) -> Array:
    """Widen the budget where the choice is open: a weighted mean of some values lies between the smallest and the largest.

    Args:
        selected: attention to the tokens of the chosen blocks (B, Hkv, R, L, Dv).
        v: values (B, Hkv, L, Dv).
        choice: of blocks, (B, Hkv, L, m).
        tokens: bool (B, Hkv, 1, L, L), which the open blocks would add.
    """
    if choice.open is None or not isinstance(selected, Bounded):
        return selected
    contract, error = selected.contract, selected.full_error.copy()
    for b, g, t in zip(*np.nonzero(choice.open.any(axis=-1)), strict=True):
        values = v.value[b, g, tokens[b, g, 0, t]]
        low, high = values.min(axis=0), values.max(axis=0)
        # The mean of computed weights leaves the hull by the rounding of the two sums, and of the weights between them.
        rounding = 2 * contract.gamma(len(values), alike=len(values)) + contract.operand + 2 * contract.unit_roundoff
        own = selected.value[b, g, :, t]
        reach = np.maximum(high - own, own - low) + rounding * np.abs(values).max(axis=0) + contract.flush * len(values)
        error[b, g, :, t] = np.maximum(error[b, g, :, t], reach)
    return Bounded(selected.value, error, contract)


@method(
    source="Yuan et al. 2025, eq. 5 and 7 to 12, arXiv:2502.11089",
    shapes="q: b h l d, k: b g s d, v: b g s e, gates: b h l branches, compress_weights?: span -> b h l e",
    where={
        **GROUPED,
        "l == s": "as many queries as keys",
        "compress_block % compress_stride == 0": "compressed blocks start at strides and end at one",
        "select_block % compress_stride == 0": "selection blocks start at strides and end at one",
        "compress_block <= select_block": "a compressed block is no longer than a selection block",
    },
    options={
        "compress_block": "size", "compress_stride": "size", "select_block": "size", "select_count": "size", "window": "size",
        "scale": "real",
    },
    conventions={"forced_blocks": ("none", "first-and-two-local"), "window_bounds": ("size", "reach")},
    derived={"branches": "3", "span": "compress_block"},
    domains={"gates": "fraction"},
    tunables=("block_q",),
    refusable={"h == g": "grouped heads"},
    decisions="b g l",
)  # fmt: skip
def native_sparse_attention(
    q: Array,
    k: Array,
    v: Array,
    gates: Array,
    *,
    compress_block: int,
    compress_stride: int,
    select_block: int,
    select_count: int,
    window: int,
    compress_weights: Array | None = None,
    scale: float | None = None,
    forced_blocks: str = "none",
    window_bounds: str = "size",
) -> Array:
    """Causal attention to summaries of blocks, to the blocks of most importance, and to a window, weighed by gates (NSA).

    The output is gates[..., 0] * compressed + gates[..., 1] * selected + gates[..., 2] * windowed (eq. 5), each branch a softmax
    of its own with the same scale over the same keys and values:

    * compressed (eq. 7): compressed block i summarises the keys, and likewise the values, of the positions
      [i * compress_stride, i * compress_stride + compress_block) in one row. Query t reads those whose last position is at
      most t; before the first of them the branch is zero. Keys behind the last whole block are in no summary.
    * selected (eq. 8 to 12): the importance of selection block j, positions [j * select_block, (j + 1) * select_block), is the
      sum of the weights of the compressed blocks that overlap it, each times the number of strides that they share, summed
      over the query heads that read the same key/value head. Among the blocks that begin at or before t, its own included,
      query t chooses the select_count of most importance, of equal ones those that come first, and reads their keys j <= t.
      All are read where there are no more than select_count. A block that no compressed block overlaps has importance 0.
      The last block may be shorter.
    * windowed: the last `window` keys, the query's own included.

    Args:
        q: queries (B, Hq, L, D).
        k: keys (B, Hkv, L, D); query head h reads key/value head h // (Hq // Hkv).
        v: values (B, Hkv, L, Dv).
        gates: from 0 to 1, (B, Hq, L, 3), of the compressed, selected and windowed branch.
        compress_block: positions of a compressed block, a multiple of compress_stride, at most select_block.
        compress_stride: positions from the start of one compressed block to that of the next.
        select_block: positions of a selection block, a multiple of compress_stride.
        select_count: how many selection blocks a query reads.
        window: how many keys the window holds.
        compress_weights: (compress_block,); a summary is the sum of its rows times these, by default their mean.
        scale: of the logits; 1 / sqrt(D) by default.
        forced_blocks: whether the first block, the query's own and the one before it are always among the select_count
            (section 4.1 of the paper) and only the others are chosen.
        window_bounds: ``reach``: the window holds the query's own key and `window` before it.

    Returns:
        (B, Hq, L, Dv).

    Raises:
        ShapeError: an array does not fit the signature, or the sizes of blocks do not fit each other.
        OptionError: an option is missing or out of range, or a gate is.
    """
    length, groups = q.shape[2], k.shape[1]
    queries, gate = split_heads(q, groups), split_heads(gates, groups)
    factor = 1 / np.sqrt(number(q.shape[-1], like=q)) if scale is None else scale
    position = np.arange(length)

    starts = np.arange(0, max(length - compress_block + 1, 0), compress_stride)
    keys, values = (_summaries(x, starts, compress_block, compress_weights) for x in (k, v))
    whole = starts + compress_block - 1 <= position[:, None]  # (L, n)
    products = np.matmul(keys[:, :, None], np.swapaxes(queries, -1, -2))  # (B, Hkv, R, n, L)
    scores = np.swapaxes(products, -1, -2) * factor
    weights, total, hidden = _weights(scores, whole)
    compressed = np.where(hidden, 0.0, np.matmul(weights, values[:, :, None]) / total)

    blocks = -(-length // select_block)
    shared = shared_strides(len(starts), blocks, compress_block, compress_stride, select_block)
    importance = np.sum(np.matmul(probabilities(weights, total), shared.astype(np.float64)), axis=2)  # (B, Hkv, L, m)
    forced = _forced(length, select_block, forced_blocks)
    begun = np.arange(blocks) * select_block <= position[:, None]  # (L, m)
    fixed = forced & begun

    causal = position <= position[:, None]
    scores_of_keys = np.matmul(queries, np.swapaxes(k, -1, -2)[:, :, None]) * factor  # (B, Hkv, R, L, L)
    reach = position[:, None] - position < window + (window_bounds == "reach")
    others = _gated(gate[..., :1], compressed) + _gated(gate[..., 2:], _attend(scores_of_keys, causal & reach, v))

    def finished(choice: Choice) -> Array:
        def tokens(members: np.ndarray) -> np.ndarray:
            return np.repeat(members, select_block, axis=-1)[:, :, None, :, :length] & causal

        selected = _attend(scores_of_keys, tokens(choice.members | fixed), v)
        if choice.open is not None:
            selected = _within_hull(selected, v, choice, tokens(choice.members | fixed | choice.open))
        return join_heads(others + _gated(gate[..., 1:2], selected))

    return decide(
        importance,
        np.maximum(select_count - fixed.sum(axis=-1), 0),
        begun & ~fixed,
        finished,
        exact=np.all(equal_weights(np.where(whole, scores, -np.inf)), axis=2),
    )


_forced = forced_blocks  # the convention of the same name hides it within the specification
