"""Incremental decoding and continuous batching: attention of requests that come, grow, fork, wait and leave in any order.

Each token's output equals that of the full sequence, whatever happened to the cache in between: continuous batching, Yu et al.
2022 (Orca, OSDI 22), section 4; pages, copy-on-write, swapping and recomputation, Kwon et al. 2023, arXiv:2309.06180, section 4.

So the whole run is one attention of all queries over all tokens, under a mask that says whose history a token belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.dense import attention
from oracle.operations import Row, count_tokens, parse_operations, rows

__all__ = ["continuous_batching", "read_tokens"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


def read_tokens(asked: tuple[Row, ...], tokens: int, sliding_window: int | None = None) -> np.ndarray:
    """Which tokens each query reads: bool (rows, tokens)."""
    read = np.zeros((len(asked), tokens), dtype=bool)
    for index, row in enumerate(asked):
        read[index, list(row.tokens if sliding_window is None else row.tokens[-sliding_window:])] = True
    return read


def _tokens(options: Mapping[str, Any]) -> int:
    return count_tokens(parse_operations(options["operations"]))


def _rows(options: Mapping[str, Any]) -> int:
    return len(rows(options["operations"]))


def _in_words(options: Mapping[str, Any], index: tuple[int, ...]) -> str:
    row = rows(options["operations"])[index[0]]
    operation = parse_operations(options["operations"])[row.step]
    return f"request {row.request}, token {len(row.tokens) - 1} of it, after operation {row.step}, {operation}"


@method(
    source="Yu et al. 2022, section 4 (Orca, OSDI 22); Kwon et al. 2023, section 4, arXiv:2309.06180",
    shapes="q: n h d, k: n g d, v: n g e -> out: r h e",
    where={"h % g == 0": "query heads must be a multiple of key/value heads"},
    options={"operations": "operations", "sliding_window": "size", "scale": "real"},
    derived={"n": _tokens, "r": _rows},
    refusable={"h == g": "grouped heads"},
    tunables=("block_size",),
    cost="h * (d + e)",
    subject="cache",
    in_words=_in_words,
)
def continuous_batching(
    q: Array, k: Array, v: Array, *, operations: str, sliding_window: int | None = None, scale: float | None = None
) -> Array:
    """Attention of every request over its own tokens alone, after each operation on a cache.

    After each operation every resident request asks with its newest tokens, those that the operation brought it or else its last
    one (the last one too where it brought more than `oracle.operations.MOST_ASKED`), and each query reads the tokens of its
    request up to its own. Implementations are classes, which keep keys and values from operation to operation: see docs/caches.md.

    Args:
        q: queries of the tokens (n, Hq, D), in the order in which the operations bring them.
        k: keys (n, Hkv, D).
        v: values (n, Hkv, Dv).
        operations: the script; see `oracle.operations`.
        sliding_window: how many of the last tokens a query reads, its own included; all by default.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        out (r, Hq, Dv): a row for each query, operation by operation; within one, requests in the order in which they joined.

    Raises:
        OptionError: an operation is not possible where it stands.
    """
    asked = rows(operations)
    queries = np.take(q, np.array([row.tokens[-1] for row in asked]), axis=0)
    by_head = [np.swapaxes(x, 0, 1)[None] for x in (queries, k, v)]
    out = attention.spec(*by_head, mask=read_tokens(asked, k.shape[0], sliding_window), scale=scale)
    return np.swapaxes(out[0], 0, 1)
