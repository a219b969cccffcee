"""Attention as servers compute it: over caches in blocks, and over sequences that are packed one after the other.

Each method here says where the keys and values of a sequence lie and leaves the rest to `oracle.dense`. What belongs to no
sequence of the call, or to another one, is never read: it may hold anything, NaN included.

Shapes: B sequences, Hq query heads, Hkv key/value heads, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.dense import GROUPED, Array, Window, attention
from oracle.domains import used_blocks

__all__ = ["paged_attention", "positions_of_blocks", "visible_positions"]

PAGES = "k_pages: num_blocks block_size g d, v_pages: num_blocks block_size g e"
A_BLOCK = {"num_blocks > 0": "a cache has at least one block", "block_size > 0": "a block has at least one place"}


def visible_positions(
    positions: int, context_lens: np.ndarray, window: Window | None = None, window_bounds: str = "inclusive"
) -> np.ndarray:  # fmt: skip
    """Which cached positions the query of each sequence reads, bool (B, positions).

    It stands at the last position that counts, context - 1.
    """
    place, contexts = np.arange(positions)[None, :], np.asarray(context_lens)[:, None]
    visible = place < contexts
    if window is not None:
        offset, reach = place - (contexts - 1), 0 if window_bounds == "inclusive" else 1
        left, right = window
        if left is not None:
            visible &= offset >= -(left - reach)
        if right is not None:
            visible &= offset <= right - reach
    return visible


def positions_of_blocks(pages: Array, block_table: np.ndarray, context_lens: np.ndarray) -> Array:
    """The cached keys or values of each sequence, (B, Hkv, max_blocks * block_size, width), zeros where none count."""
    _, size, heads, width = pages.shape
    batch, count = block_table.shape
    rows = np.take(pages, np.where(used_blocks(count, size, context_lens), block_table, 0), axis=0)
    rows = np.swapaxes(rows.reshape(batch, count * size, heads, width), 1, 2)
    return np.where(visible_positions(count * size, context_lens)[:, None, :, None], rows, 0.0)


def _read_places(arguments: Mapping[str, Any], visible: np.ndarray) -> np.ndarray:
    """Which places of the cache some sequence reads, bool (num_blocks, block_size)."""
    blocks, size = arguments["k_pages"].shape[:2]
    read = np.zeros((blocks, size), dtype=bool)
    sequence, position = np.nonzero(visible)
    read[arguments["block_table"][sequence, position // size], position % size] = True
    return read


def _not_in(arguments: Mapping[str, Any], read: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.broadcast_to(~read[:, :, None, None], arguments[name].shape) for name in ("k_pages", "v_pages")}


def unread_places(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Elements of the cache that no query reads."""
    positions = arguments["block_table"].shape[1] * arguments["k_pages"].shape[1]
    window = arguments.get("window"), arguments.get("window_bounds", "inclusive")
    return _not_in(arguments, _read_places(arguments, visible_positions(positions, arguments["context_lens"], *window)))


def foreign_places(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Elements of the cache that hold no position of any sequence: the rest of a last block, blocks of others."""
    positions = arguments["block_table"].shape[1] * arguments["k_pages"].shape[1]
    return _not_in(arguments, _read_places(arguments, visible_positions(positions, arguments["context_lens"])))


@method(
    source="Kwon et al. 2023, section 4.1, eq. 4, arXiv:2309.06180",
    shapes=f"q: b h d, {PAGES}, block_table: int b max_blocks, context_lens: int b -> b h e",
    where={**GROUPED, **A_BLOCK},
    options={"scale": "real", "window": "window", "softcap": "positive"},
    conventions={"head_map": ("grouped", "interleaved"), "window_bounds": ("inclusive", "exclusive"), "empty_row": ("zeros", "nan")},
    tunables=("block_k", "num_splits"),
    domains={"block_table": "block-table num_blocks block_size context_lens", "context_lens": "context block_size max_blocks"},
    unread=unread_places,
    foreign=foreign_places,
    hiding=("k_pages", "v_pages"),
    cost="b * h * max_blocks * block_size",
)
def paged_attention(
    q: Array,
    k_pages: Array,
    v_pages: Array,
    block_table: np.ndarray,
    context_lens: np.ndarray,
    *,
    scale: float | None = None,
    window: Window | None = None,
    softcap: float | None = None,
    head_map: str = "grouped",
    window_bounds: str = "inclusive",
    empty_row: str = "zeros",
) -> Array:
    """Attention of one new query a sequence over a cache of keys and values that lie in blocks (PagedAttention).

    Position t of sequence b lies in block block_table[b, t // block_size], at offset t % block_size; its first context_lens[b]
    positions count. The query stands at the last of them, context_lens[b] - 1: its own key and value are in the cache.

    Args:
        q: queries (B, Hq, D).
        k_pages: keys (num_blocks, block_size, Hkv, D); query head h reads key/value head h // (Hq // Hkv).
        v_pages: values (num_blocks, block_size, Hkv, Dv).
        block_table: integers (B, max_blocks); -1 or anything below num_blocks in entries that no position uses. Sequences may
            share blocks.
        context_lens: integers (B,), from 0 to max_blocks * block_size.
        scale: of the logits; 1 / sqrt(D) by default.
        window: (left, right); position t is read iff -left <= t - (context - 1) <= right, None is unbounded. No position lies
            ahead of the query, so that only the left bound matters.
        softcap: c; the logits become c * tanh(logits / c).

    Returns:
        (B, Hq, Dv); zeros for a sequence without context. Positions beyond the context and blocks of others may hold anything.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: a context is too long, or an entry of the table that is used lies outside the cache.
    """
    keys, values = (positions_of_blocks(pages, block_table, context_lens) for pages in (k_pages, v_pages))
    allowed = visible_positions(keys.shape[2], context_lens, window, window_bounds)
    out = attention.spec(
        q[:, :, None], keys, values, mask=allowed[:, None, None], softcap=softcap, scale=scale, head_map=head_map, empty_row=empty_row
    )
    return out[:, :, 0]
