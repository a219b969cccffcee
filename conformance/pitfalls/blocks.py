"""Mistakes in the sets of blocks of keys: BigBird, and a mask of blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.sparse import Given, Sizes, key_mistake, padding_mistake, positions_of, weight_mistake
from oracle import METHODS

BIGBIRD = "Zaheer et al. 2020, appendix D, arXiv:2007.14062"
BLOCKS = "Dao et al. 2022, section 3.3, arXiv:2205.14135"


def _right(method: str, given: Given, sizes: Sizes, **changes: Any) -> Array:
    """The keys of a method with some arguments changed."""
    visible = METHODS[method].visible
    assert visible is not None, "a sparse method says which keys it reads"
    return visible({**given, **changes}, sizes)


# BigBird.


def _big(given: Given, sizes: Sizes, **changes: Any) -> Array:
    return _right("bigbird_attention", given, sizes, **changes)


def _blocks(given: Given, sizes: Sizes) -> tuple[Array, Array]:
    """Block of each query and of each key."""
    i, j = positions_of(sizes)
    return i // given["block_size"], j // given["block_size"]


def _none(given: Given) -> Array:
    return np.zeros((given["random_blocks"].shape[0], 0), np.int64)


def _chosen(given: Given, sizes: Sizes) -> Array:
    """Keys in the random blocks of a query."""
    return _big(given, sizes, global_blocks=0, window_blocks=-1, window_count="each-side")


def _random_transposed(given: Given, sizes: Sizes, _: Setting) -> Array:
    return _big(given, sizes, random_blocks=_none(given)) | _chosen(given, sizes).T


def _random_of_next(given: Given, sizes: Sizes, _: Setting) -> Array:
    return _big(given, sizes, random_blocks=np.roll(given["random_blocks"], 1, axis=0))


def _window_one_sided(given: Given, sizes: Sizes, _: Setting) -> Array:
    query, key = _blocks(given, sizes)
    inside = _big(given, sizes, random_blocks=_none(given), global_blocks=0)
    return (inside & (key <= query)) | _big(given, sizes, window_blocks=-1, window_count="each-side")


def _global_keys_only(given: Given, sizes: Sizes, _: Setting) -> Array:
    return _big(given, sizes, global_blocks=0) | (_blocks(given, sizes)[1] < given["global_blocks"])


def _global_rows_only(given: Given, sizes: Sizes, _: Setting) -> Array:
    return _big(given, sizes, global_blocks=0) | (_blocks(given, sizes)[0] < given["global_blocks"])


def _global_tokens(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    return _big(given, sizes, global_blocks=0) | (i < given["global_blocks"]) | (j < given["global_blocks"])


def _last_block_dropped(given: Given, sizes: Sizes, _: Setting) -> Array:
    return _big(given, sizes) & (positions_of(sizes)[1] < sizes["s"] // given["block_size"] * given["block_size"])


def _last_block_global(given: Given, sizes: Sizes, _: Setting) -> Array:
    (query, key), last = _blocks(given, sizes), -(-sizes["s"] // given["block_size"]) - 1
    return _big(given, sizes) | ((given["global_blocks"] > 0) & ((query == last) | (key == last)))


def _window_shifted(given: Given, sizes: Sizes, _: Setting) -> Array:
    (query, key), count = _blocks(given, sizes), -(-sizes["s"] // given["block_size"])
    width = given["window_blocks"] if given.get("window_count", "total") == "total" else 2 * given["window_blocks"] + 1
    start = np.clip(query - width // 2, 0, max(count - width, 0))
    return _big(given, sizes, window_blocks=-1, window_count="each-side") | ((key >= start) & (key < start + width))


def _random_without_globals(given: Given, sizes: Sizes, _: Setting) -> Array:
    return _big(given, sizes, random_blocks=np.roll(given["random_blocks"], given["global_blocks"], axis=0))


def _padded_keys(given: Given, sizes: Sizes) -> Array:
    """How many keys are missing in the last block, for the queries that read it."""
    missing = -sizes["s"] % given["block_size"]
    return _big(given, sizes)[:, -1:] * missing if sizes["s"] else np.zeros((1, 1), np.int64)


def _random_twice(given: Given, sizes: Sizes) -> Array:
    return 1 + (_chosen(given, sizes) & _big(given, sizes, random_blocks=_none(given)))


def _random_repeats(given: Given, sizes: Sizes) -> Array:
    chosen, size = given["random_blocks"], given["block_size"]
    times = (chosen[:, :, None] == np.arange(chosen.shape[0])).sum(axis=1)
    return np.maximum(np.repeat(np.repeat(times, size, 0), size, 1)[: sizes["l"], : sizes["s"]], 1)


def _band(given: Given, sizes: Sizes, more: int) -> Array:
    reach = (given["window_blocks"] - 1) // 2 if given.get("window_count", "total") == "total" else given["window_blocks"]
    return _big(given, sizes, window_blocks=reach + more, window_count="each-side")


_bigbird = partial(key_mistake, "bigbird_attention", citation=BIGBIRD)
_bigbird(
    "random-blocks-ignored", "The random blocks are not read.", keys=lambda given, sizes, _: _big(given, sizes, random_blocks=_none(given))
)
_bigbird("random-blocks-transposed", "random_blocks[J] is taken for the query blocks that read block J.", keys=_random_transposed)
_bigbird("random-blocks-of-neighbour", "A query block reads the random blocks of the one before it.", keys=_random_of_next)
_bigbird(
    "first-random-block-only",
    "Only the first of the random blocks is read.",
    keys=lambda given, sizes, _: _big(given, sizes, random_blocks=given["random_blocks"][:, :1]),
)
_bigbird("window-past-only", "The window reaches back only.", keys=_window_one_sided)
_bigbird("window-one-block-short", "The window is one block short on either side.", keys=lambda given, sizes, _: _band(given, sizes, -1))
_bigbird(
    "window-one-block-too-many", "The window is one block too long on either side.", keys=lambda given, sizes, _: _band(given, sizes, 1)
)
_bigbird("global-rows-forgotten", "The first blocks are seen by all but see no more than others.", keys=_global_keys_only)
_bigbird("global-keys-forgotten", "The first blocks see all but are not seen.", keys=_global_rows_only)
_bigbird("global-blocks-ignored", "No block is global.", keys=lambda given, sizes, _: _big(given, sizes, global_blocks=0))
_bigbird("global-blocks-taken-for-tokens", "As many tokens as there should be blocks are global.", keys=_global_tokens)
_bigbird(
    "one-global-block-only",
    "Only the first block is global.",
    keys=lambda given, sizes, _: _big(given, sizes, global_blocks=min(given["global_blocks"], 1)),
)
_bigbird("last-block-dropped", "The keys of a last, shorter block are never read.", keys=_last_block_dropped)
_bigbird(
    "last-block-global-too",
    "The last block is global like the first ones, as in the authors' own code.",
    keys=_last_block_global,
)
_bigbird("window-shifted-at-ends", "At either end the window is shifted inwards so that it keeps its width.", keys=_window_shifted)
_bigbird(
    "random-blocks-counted-without-global-ones",
    "The rows of random_blocks are counted from the first block that is not global.",
    keys=_random_without_globals,
)
padding_mistake(
    "bigbird_attention", "last-block-padding-counted", "The zeros that fill a last, shorter block count as keys that score 0.",
    BIGBIRD, _padded_keys, needs="s % block_size != 0",
)  # fmt: skip
_bigbird(
    "causal-added",
    "Later keys are hidden; the method is not causal.",
    keys=lambda given, sizes, _: _big(given, sizes) & np.tri(sizes["s"], dtype=bool)[: sizes["l"]],
)
weight_mistake(
    "bigbird_attention",
    "random-block-counted-twice",
    "A random block that is in the window or global counts twice.",
    BIGBIRD,
    _random_twice,
)
weight_mistake(
    "bigbird_attention",
    "repeated-random-block-counted",
    "A block that stands twice among the random ones counts twice.",
    BIGBIRD,
    _random_repeats,
)


# Block-sparse.


def _sparse(given: Given, sizes: Sizes, **changes: Any) -> Array:
    return _right("block_sparse_attention", given, sizes, **changes)


def _mask_transposed(given: Given, sizes: Sizes, _: Setting) -> Array:
    mask = given["block_mask"]
    return _sparse(given, sizes, block_mask=mask.swapaxes(2, 3)) if mask.shape[2] == mask.shape[3] else _sparse(given, sizes)


def _blocks_exchanged(given: Given, sizes: Sizes, _: Setting) -> Array:
    mask, (i, j) = given["block_mask"], positions_of(sizes)
    rows, columns = np.minimum(i // given["block_k"], mask.shape[2] - 1), np.minimum(j // given["block_q"], mask.shape[3] - 1)
    return mask[:, :, rows, columns] & _sparse(given, sizes, block_mask=np.ones_like(mask))


def _cut_off(axis: int, size: str, length: str, allowed: bool) -> Any:
    def keys(given: Given, sizes: Sizes, _: Setting) -> Array:
        inside = positions_of(sizes)[axis] < sizes[length] // given[size] * given[size]
        whole = _sparse(given, sizes)
        return whole | ~inside if allowed else whole & inside

    return keys


def _causal_top_left(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    return _sparse(given, sizes, causal=False) & (j <= i) if given.get("causal") else _sparse(given, sizes)


def _causal_by_block(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    last = (i + sizes["s"] - sizes["l"]) // given["block_k"]
    return _sparse(given, sizes, causal=False) & (j // given["block_k"] <= last) if given.get("causal") else _sparse(given, sizes)


def _skipped_by_index(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    beyond = j // given["block_k"] > (i + sizes["s"] - sizes["l"]) // given["block_q"]
    return _sparse(given, sizes) & ~(beyond & bool(given.get("causal")))


def _as_many_as_first_row(given: Given, sizes: Sizes, _: Setting) -> Array:
    mask = given["block_mask"]
    count = mask[:1, :1, :1].sum(axis=-1, keepdims=True) if mask.size else 0
    return _sparse(given, sizes, block_mask=mask & (np.cumsum(mask, axis=-1) <= count))


def _padded_block(given: Given, sizes: Sizes) -> Array:
    """How many keys are missing in the last block, for the queries that read it."""
    missing = -sizes["s"] % given["block_k"]
    return _sparse(given, sizes, causal=False)[..., -1:] * missing if sizes["s"] else np.zeros((1, 1), np.int64)


_block = partial(key_mistake, "block_sparse_attention", citation=BLOCKS)
_block(
    "block-mask-ignored",
    "All blocks are read.",
    keys=lambda given, sizes, _: _sparse(given, sizes, block_mask=np.ones_like(given["block_mask"])),
)
_block("block-mask-transposed", "block_mask[J, I] is read for block_mask[I, J].", keys=_mask_transposed)
_block(
    "block-mask-of-first-head",
    "All heads read the blocks of the first head.",
    keys=lambda given, sizes, _: _sparse(given, sizes, block_mask=given["block_mask"][:, :1]),
)
_block(
    "block-mask-of-first-batch",
    "All sequences read the blocks of the first one.",
    keys=lambda given, sizes, _: _sparse(given, sizes, block_mask=given["block_mask"][:1]),
)
_block(
    "block-sizes-exchanged",
    "block_q is taken for block_k and the other way round.",
    keys=_blocks_exchanged,
    needs="block_q != block_k and b * h * l * s > 0",
)
_block("last-key-block-dropped", "The keys of a last, shorter block are never read.", keys=_cut_off(1, "block_k", "s", allowed=False))
_block("last-key-block-unmasked", "The keys of a last, shorter block are always read.", keys=_cut_off(1, "block_k", "s", allowed=True))
_block("last-query-block-empty", "The queries of a last, shorter block read nothing.", keys=_cut_off(0, "block_q", "l", allowed=False))
_block("causal-ignored", "The option `causal` is ignored.", keys=lambda given, sizes, _: _sparse(given, sizes, causal=False))
_block("causal-top-left", "The causal mask is aligned with the first key instead of the last.", keys=_causal_top_left)
_block("causal-by-block", "Causality hides whole blocks only: the block on the diagonal is read to its end.", keys=_causal_by_block)
_block(
    "causal-skips-blocks-by-index",
    "Blocks of keys whose index exceeds that of the query's block are skipped, as if both had one size.",
    keys=_skipped_by_index,
)
_block("blocks-counted-in-first-row", "Every row reads at most as many blocks as the first row has.", keys=_as_many_as_first_row)
padding_mistake(
    "block_sparse_attention", "last-block-padding-counted", "The zeros that fill a last, shorter block count as keys that score 0.",
    BLOCKS, _padded_block, needs="s % block_k != 0 and not causal",
)  # fmt: skip
