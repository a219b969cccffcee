"""Mistakes in the sets of single keys: local and global, strided, fixed, and a pattern of the caller's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.sparse import Given, Sizes, key_mistake, padding_mistake, positions_of, weight_mistake

LONGFORMER = "Beltagy et al. 2020, section 3.1, arXiv:2004.05150"
SPARSE_TRANSFORMER = "Child et al. 2019, section 4.3, arXiv:1904.10509"


# Local and global.


def _globals(given: Given, sizes: Sizes) -> Array:
    return np.isin(np.arange(sizes["s"]), np.asarray(given["global_tokens"], dtype=np.int64))


def _local_global(window: Array, columns: Array, rows: Array, given: Given, sizes: Sizes, causal: Array | bool | None = None) -> Array:
    (i, j), special = positions_of(sizes), _globals(given, sizes)
    allowed = window | columns | (rows if given.get("global_rows", True) else False)
    if not given.get("global_self", True):
        allowed = allowed & ~(special[: sizes["l"], None] & (i == j))
    within = (j <= i) if causal is None else causal
    return allowed & within if given.get("causal") else allowed


def _with(given: Given, sizes: Sizes, _: Setting, *, reach: Any = None, columns: bool = True, rows: bool = True, **options: Any) -> Array:
    """The keys of local_global_attention with another window, or without global columns or rows."""
    (i, j), special = positions_of(sizes), _globals(given, sizes)
    window = np.abs(i - j) <= given["window"] if reach is None else reach(i - j, given["window"])
    return _local_global(window, special[None, :] & columns, special[: sizes["l"], None] & rows, {**given, **options}, sizes)


def _future_globals(given: Given, sizes: Sizes, _: Setting) -> Array:
    (i, j), special = positions_of(sizes), _globals(given, sizes)
    window, columns, rows = np.abs(i - j) <= given["window"], special[None, :], special[: sizes["l"], None]
    return _local_global(window, columns, rows, given, sizes, causal=(j <= i) | columns | (rows & given.get("global_rows", True)))


_local = partial(key_mistake, "local_global_attention", citation=LONGFORMER)
_local(
    "global-keys-forgotten", "Global queries see all keys, but the others do not see the global ones.", keys=partial(_with, columns=False)
)
_local(
    "global-rows-forgotten", "All queries see the global keys, but global queries see no more than others.", keys=partial(_with, rows=False)
)
_local(
    "global-rows-ignored", "The option `global_rows=False` is ignored: global queries see all keys.", keys=partial(_with, global_rows=True)
)
_local(
    "global-self-ignored",
    "The option `global_self=False` is ignored: global queries see themselves.",
    keys=partial(_with, global_self=True),
)
_local("global-self-dropped", "A global query does not see itself although it may.", keys=partial(_with, global_self=False))
_local("window-past-only", "The window reaches back only.", keys=partial(_with, reach=lambda ahead, w: (ahead >= 0) & (ahead <= w)))
_local("window-one-short", "The window is one key short on either side.", keys=partial(_with, reach=lambda ahead, w: np.abs(ahead) < w))
_local(
    "window-one-too-many",
    "The window is one key too long on either side.",
    keys=partial(_with, reach=lambda ahead, w: np.abs(ahead) <= w + 1),
)
_local(
    "window-one-short-behind",
    "The window misses its last key behind.",
    keys=partial(_with, reach=lambda ahead, w: (ahead < w) & (-ahead <= w)),
)
_local(
    "window-one-short-ahead",
    "The window misses its last key ahead.",
    keys=partial(_with, reach=lambda ahead, w: (ahead <= w) & (-ahead < w)),
)
_local(
    "window-taken-for-total", "The window is taken for the width of both sides together.",
    keys=partial(_with, reach=lambda ahead, w: np.abs(ahead) <= w // 2),
)  # fmt: skip
_local("window-ignored", "Every query sees all keys.", keys=partial(_with, reach=lambda ahead, w: ahead == ahead))
_local(
    "global-tokens-counted", "As many tokens as are listed are global, from the first on, instead of those listed.",
    keys=lambda given, sizes, setting: _with({**given, "global_tokens": range(len(given["global_tokens"]))}, sizes, setting),
)  # fmt: skip
_local(
    "first-global-token-only", "Only the first of the listed tokens is global.", needs="tokens > 1",
    keys=lambda given, sizes, setting: _with({**given, "global_tokens": given["global_tokens"][:1]}, sizes, setting),
)  # fmt: skip
_local(
    "window-zero-taken-for-none", "`window or everything`: a window of 0 counts as no window.", needs="window == 0",
    keys=partial(_with, reach=lambda ahead, w: ahead == ahead),
)  # fmt: skip
_local(
    "global-tokens-taken-for-range", "All tokens from the first to the last of those listed are global.", needs="tokens > 0",
    keys=lambda given, sizes, setting: _with(
        {**given, "global_tokens": range(min(given["global_tokens"], default=0), max(given["global_tokens"], default=-1) + 1)},
        sizes, setting,
    ),
)  # fmt: skip
_local(
    "global-token-zero-forgotten", "`if token`: position 0 counts as none.", needs="tokens > 0",
    keys=lambda given, sizes, setting: _with({**given, "global_tokens": [one for one in given["global_tokens"] if one]}, sizes, setting),
)  # fmt: skip
_local("causal-ignored", "The option `causal` is ignored.", keys=partial(_with, causal=False))
_local("causal-not-for-globals", "Global keys and global queries are exempt from causality.", keys=_future_globals)


def _times_listed(given: Given, sizes: Sizes) -> Array:
    return np.maximum(np.bincount(np.asarray(given["global_tokens"], dtype=np.int64), minlength=sizes["s"]), 1)


def _twice_in_window(given: Given, sizes: Sizes) -> Array:
    (i, j), special = positions_of(sizes), _globals(given, sizes)
    return 1 + (special[None, :] & (np.abs(i - j) <= given["window"]))


def _moved_window(given: Given, sizes: Sizes, start: Array) -> Array:
    """The keys of local_global_attention if the window of query i begins at start[i] and may go round the end."""
    (_, j), special, length = positions_of(sizes), _globals(given, sizes), max(sizes["s"], 1)
    window = (j - start) % length <= 2 * given["window"]
    return _local_global(window, special[None, :], special[: sizes["l"], None], given, sizes)


def _shifted_window(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, _keys = positions_of(sizes)
    return _moved_window(given, sizes, np.clip(i - given["window"], 0, max(sizes["s"] - 2 * given["window"] - 1, 0)))


def _wrapped_window(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, _keys = positions_of(sizes)
    return _moved_window(given, sizes, i - given["window"])


def _beyond_the_ends(given: Given, sizes: Sizes) -> Array:
    i, _ = positions_of(sizes)
    before, behind = np.maximum(given["window"] - i, 0), np.maximum(i + given["window"] + 1 - sizes["s"], 0)
    return before if given.get("causal") else before + behind


_local("window-shifted-at-ends", "At either end the window is shifted inwards so that it keeps its width.", keys=_shifted_window)
_local("window-goes-round", "Before the first key the window goes on at the last, and the other way round.", keys=_wrapped_window)
padding_mistake(
    "local_global_attention", "window-padding-counted", "The zeros that a window finds beyond either end count as keys that score 0.",
    LONGFORMER, _beyond_the_ends, needs="window > 0",
)  # fmt: skip
_twice = partial(weight_mistake, "local_global_attention", citation=LONGFORMER)
_twice("global-duplicates-counted", "A global token that is listed twice counts twice.", count=_times_listed, needs="tokens > 1")
_twice("global-in-window-counted-twice", "A global key within the window counts twice.", count=_twice_in_window, needs="tokens > 0")


# Strided and fixed.


def _causal(sets: Any) -> Any:
    """From (i, j, stride, c) to a set, made causal."""

    def keys(given: Given, sizes: Sizes, _: Setting) -> Array:
        i, j = positions_of(sizes)
        return (j <= i) & sets(i, j, given["stride"], given.get("c", 1))

    return keys


_strided = partial(key_mistake, "strided_attention", citation=SPARSE_TRANSFORMER)
_strided(
    "stride-phase-absolute",
    "Every stride-th key counts from the first, not back from the query.",
    keys=_causal(lambda i, j, n, c: (i - j < n) | (j % n == 0)),
)
_strided("stride-phase-shifted", "The strided keys are one off.", keys=_causal(lambda i, j, n, c: (i - j < n) | ((i - j + 1) % n == 0)))
_strided("strided-keys-forgotten", "Only the last keys are read.", keys=_causal(lambda i, j, n, c: i - j < n))
_strided("local-keys-forgotten", "Only every stride-th key is read.", keys=_causal(lambda i, j, n, c: (i - j) % n == 0))
_strided("local-keys-one-short", "One of the last keys is not read.", keys=_causal(lambda i, j, n, c: (i - j < n - 1) | ((i - j) % n == 0)))
_strided(
    "local-keys-one-too-many",
    "One key more of the last ones is read.",
    keys=_causal(lambda i, j, n, c: (i - j <= n + 1) | ((i - j) % n == 0)),
)
_strided(
    "local-keys-by-block",
    "Not the last keys, but those of the query's own block are read.",
    keys=_causal(lambda i, j, n, c: (i // n == j // n) | ((i - j) % n == 0)),
)
_strided(
    "nearest-strided-key-skipped",
    "The strided keys begin two strides back: the one exactly a stride back is not read.",
    keys=_causal(lambda i, j, n, c: (i - j < n) | (((i - j) % n == 0) & (i - j >= 2 * n))),
)
_strided("sets-intersected", "A key must be near and a stride away.", keys=_causal(lambda i, j, n, c: (i - j < n) & ((i - j) % n == 0)))


def _strided_both_ways(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    return (np.abs(i - j) < given["stride"]) | ((i - j) % given["stride"] == 0)


def _fixed_both_ways(given: Given, sizes: Sizes, _: Setting) -> Array:
    (i, j), stride = positions_of(sizes), given["stride"]
    return (i // stride == j // stride) | (j % stride >= stride - given.get("c", 1))


def _ragged_row(given: Given, sizes: Sizes, _: Setting) -> Array:
    (i, j), stride = positions_of(sizes), given["stride"]
    far = ((i - j) % stride == 0) & (i < sizes["l"] // stride * stride)
    return (j <= i) & ((i - j < stride) | far)


def _summary_by_head(given: Given, sizes: Sizes, _: Setting) -> Array:
    (i, j), stride, c = positions_of(sizes), given["stride"], given.get("c", 1)
    end = stride - np.arange(sizes["h"])[:, None, None] % max(stride // c, 1) * c
    return (j <= i) & ((i // stride == j // stride) | ((j % stride >= end - c) & (j % stride < end)))


def _own_key(given: Given, sizes: Sizes) -> Array:
    i, j = positions_of(sizes)
    return 1 + (i == j)


def _own_summary(given: Given, sizes: Sizes) -> Array:
    (i, j), stride = positions_of(sizes), given["stride"]
    return 1 + ((i // stride == j // stride) & (j % stride >= stride - given.get("c", 1)))


_strided(
    "ragged-row-reads-near-keys-only",
    "On a grid as wide as the stride, the queries of a last, shorter row see no strided keys.",
    keys=_ragged_row,
)
weight_mistake(
    "strided_attention", "own-key-counted-twice", "The query's own key counts twice: as a near and as a strided one.",
    SPARSE_TRANSFORMER, _own_key, needs="l > 1",
)  # fmt: skip
_strided("causal-ignored", "Later keys are read too.", keys=_strided_both_ways)
_fixed = partial(key_mistake, "fixed_attention", citation=SPARSE_TRANSFORMER)
_fixed("causal-ignored", "Later keys are read too.", keys=_fixed_both_ways)
_fixed(
    "summary-option-ignored",
    "The option `c` is ignored: one summary position a block.",
    keys=_causal(lambda i, j, n, c: (i // n == j // n) | (j % n >= n - 1)),
)
_fixed(
    "summary-one-short",
    "One summary position of each block is not read.",
    keys=_causal(lambda i, j, n, c: (i // n == j // n) | (j % n > n - c)),
)
_fixed(
    "summary-one-too-many",
    "One summary position too many is read.",
    keys=_causal(lambda i, j, n, c: (i // n == j // n) | (j % n >= n - c - 1)),
)
_fixed(
    "summary-at-block-start",
    "The first keys of each block are its summary.",
    keys=_causal(lambda i, j, n, c: (i // n == j // n) | (j % n < c)),
)
_fixed(
    "summary-by-head",
    "Every head reads other summary positions, counted back from the end of the block.",
    keys=_summary_by_head,
    needs="h > 1",
)
weight_mistake(
    "fixed_attention", "own-summary-counted-twice", "The summary positions of the query's own block count twice.",
    SPARSE_TRANSFORMER, _own_summary, needs="l > 1",
)  # fmt: skip
_fixed("summary-forgotten", "Earlier blocks are not read.", keys=_causal(lambda i, j, n, c: i // n == j // n))
_fixed("block-forgotten", "Only summaries are read.", keys=_causal(lambda i, j, n, c: j % n >= n - c))
_fixed(
    "block-as-window", "Not the query's block, but the last keys are read.", keys=_causal(lambda i, j, n, c: (i - j < n) | (j % n >= n - c))
)
_fixed("block-with-one-before", "The block before is read too.", keys=_causal(lambda i, j, n, c: (i // n - j // n <= 1) | (j % n >= n - c)))


# A pattern of the caller's own.


def _pattern(given: Given, sizes: Sizes, i: Array, j: Array) -> Array:
    return np.broadcast_to(np.asarray(given["pattern"](i, j), dtype=bool), (sizes["l"], sizes["s"]))


def _arguments_exchanged(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    return _pattern(given, sizes, j, i)


def _aligned_with_last(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    return _pattern(given, sizes, i + sizes["s"] - sizes["l"], j)


def _mirrored(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    return _pattern(given, sizes, np.maximum(i, j), np.minimum(i, j))


def _own_key_instead(given: Given, sizes: Sizes, _: Setting) -> Array:
    i, j = positions_of(sizes)
    allowed = _pattern(given, sizes, i, j)
    return allowed | (~allowed.any(axis=-1, keepdims=True) & (i == j))


def _by_tile(tile: int) -> Any:
    def keys(given: Given, sizes: Sizes, setting: Setting) -> Array:
        i, j = positions_of(sizes)
        size = setting.tunables.get("block_k", tile)
        return _pattern(given, sizes, i // size * size, j // size * size)

    return keys


def _within_tile(given: Given, sizes: Sizes, setting: Setting) -> Array:
    i, j = positions_of(sizes)
    size = setting.tunables.get("block_k", 64)
    return _pattern(given, sizes, i, j % size)


_own = partial(key_mistake, "pattern_attention", citation="pytorch#147373")
_own("pattern-ignored", "All keys are read.", keys=lambda given, sizes, _: np.ones((sizes["l"], sizes["s"]), bool))
_own("pattern-arguments-exchanged", "The pattern is called with the key's position first.", keys=_arguments_exchanged)
_own(
    "pattern-aligned-with-last-key", "The query's position is counted as if the last query stood at the last key.", keys=_aligned_with_last
)
_own("pattern-mirrored", "The pattern is asked about keys up to the query only, and mirrored: it need not be symmetric.", keys=_mirrored)
_own("empty-row-reads-its-own-key", "A query to which the pattern gives no key reads the key at its own position.", keys=_own_key_instead)
_own("pattern-by-tile", "A whole tile is read or skipped by the pattern at its first element.", keys=_by_tile(64))
_own("pattern-position-within-tile", "The key's position is counted from the start of its tile.", keys=_within_tile)
_own(
    "causal-added",
    "Later keys are hidden; the pattern alone decides.",
    keys=lambda given, sizes, _: _pattern(given, sizes, *positions_of(sizes)) & (positions_of(sizes)[1] <= positions_of(sizes)[0]),
)
