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

__all__ = ["append_to_pages", "paged_attention", "positions_of_blocks", "varlen_attention", "visible_positions", "visible_tokens"]

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


def _written(pages: Array, rows: Array, slots: np.ndarray) -> Array:
    """A cache with rows at some of its places."""
    if len(slots) == 0:
        return pages
    source = np.full(pages.shape[0] * pages.shape[1], -1)
    source[slots[slots >= 0]] = np.flatnonzero(slots >= 0)
    places = pages.reshape(len(source), *pages.shape[2:])
    new = np.where((source >= 0)[:, None, None], np.take(rows, np.maximum(source, 0), axis=0), places)
    return new.reshape(pages.shape)


def overwritten(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What stood in the places that are written, and rows that are written nowhere."""
    slots, pages = np.asarray(arguments["slots"]), arguments["k_pages"]
    written = np.zeros(pages.shape[0] * pages.shape[1], dtype=bool)
    written[slots[slots >= 0]] = True
    gone = {name: written.reshape(*pages.shape[:2], 1, 1) for name in ("k_pages", "v_pages")}
    gone |= dict.fromkeys(("k", "v"), (slots < 0)[:, None, None])
    return {name: np.broadcast_to(elements, arguments[name].shape) for name, elements in gone.items()}


@method(
    source="Kwon et al. 2023, section 4.3, arXiv:2309.06180 (reshape_and_cache of vLLM)",
    shapes=f"k: l g d, v: l g e, {PAGES}, slots: int l -> new_k_pages: num_blocks block_size g d, new_v_pages: num_blocks block_size g e",
    where=A_BLOCK,
    domains={"slots": "slots num_blocks block_size"},
    unread=overwritten,
    foreign=overwritten,
    hiding=("k_pages", "v_pages", "k", "v"),
    cost="num_blocks * block_size * g",
)
def append_to_pages(k: Array, v: Array, k_pages: Array, v_pages: Array, slots: np.ndarray) -> tuple[Array, Array]:
    """Write the keys and values of new tokens into a cache of blocks.

    Token t goes to slot slots[t]: to block slots[t] // block_size, at offset slots[t] % block_size. A slot of -1 is that of
    padding, which is written nowhere. All other places keep what they hold, whatever it is. The arguments stay as they are: what
    is returned is a new cache.

    Args:
        k: keys of the new tokens (T, Hkv, D).
        v: their values (T, Hkv, Dv).
        k_pages: keys (num_blocks, block_size, Hkv, D).
        v_pages: values (num_blocks, block_size, Hkv, Dv).
        slots: integers (T,), -1 or from 0 to num_blocks * block_size - 1, none of these twice.

    Returns:
        The new keys and values of the cache, shaped as the old ones.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: a slot lies outside the cache, or two tokens go to the same one.
    """
    return _written(k_pages, k, slots), _written(v_pages, v, slots)


def _padded(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens of each sequence lie, one row a sequence, (B, longest); and which places of a row hold one."""
    lengths = np.diff(edges)
    place = np.arange(lengths.max(initial=0))[None, :]
    held = place < lengths[:, None]
    return np.where(held, edges[:-1, None] + place, 0), held


def visible_tokens(
    edges_q: np.ndarray,
    edges_k: np.ndarray,
    *,
    causal: bool = False,
    window: Window | None = None,
    causal_alignment: str = "bottom-right",
    window_bounds: str = "inclusive",
) -> np.ndarray:
    """Which keys of its own sequence a query reads, bool (B, longest of queries, longest of keys)."""
    (_, queries), (_, keys) = _padded(edges_q), _padded(edges_k)
    start = np.diff(edges_k) - np.diff(edges_q) if causal_alignment == "bottom-right" else np.zeros(len(queries), np.int64)
    offset = np.arange(keys.shape[1]) - (np.arange(queries.shape[1])[:, None] + start[:, None, None])
    visible = queries[:, :, None] & keys[:, None, :]
    left, right = window or (None, None)
    reach = 0 if window_bounds == "inclusive" else 1
    if causal:
        visible &= offset <= 0
    if left is not None:
        visible &= offset >= -(left - reach)
    if right is not None:
        visible &= offset <= right - reach
    return visible


TOKENS = ("causal", "window", "causal_alignment", "window_bounds")


def _not_read(arguments: Mapping[str, Any], read: np.ndarray) -> dict[str, np.ndarray]:
    """Elements of keys and values from which places of padded rows are read, (B, longest of keys)."""
    place, held = _padded(np.asarray(arguments["cu_seqlens_k"]))
    tokens = np.zeros(len(arguments["k"]), dtype=bool)
    tokens[place[held & read]] = True
    return {name: np.broadcast_to(~tokens[:, None, None], arguments[name].shape) for name in ("k", "v")}


def unread_tokens(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Keys and values that no query reads."""
    edges = (np.asarray(arguments[f"cu_seqlens_{name}"]) for name in "qk")
    visible = visible_tokens(*edges, **{name: arguments[name] for name in TOKENS if name in arguments})
    return _not_read(arguments, np.asarray(visible.any(axis=1)))


def foreign_tokens(arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Keys and values of sequences without queries."""
    return _not_read(arguments, np.diff(arguments["cu_seqlens_q"])[:, None] > 0)


@method(
    source="Dao 2023, arXiv:2307.08691 (flash_attn_varlen_func); Krell et al. 2021, section 3.2, arXiv:2107.02027",
    shapes="q: l h d, k: s g d, v: s g e, cu_seqlens_q: int edges, cu_seqlens_k: int edges -> l h e",
    where={
        **GROUPED, "edges > 0": "cumulative lengths start with a 0",
        "edges > 1 or (l == 0 and s == 0)": "tokens belong to a sequence",
    },
    options={"causal": "flag", "window": "window", "softcap": "positive", "scale": "real"},
    conventions={
        "causal_alignment": ("bottom-right", "top-left"), "empty_row": ("zeros", "nan"), "head_map": ("grouped", "interleaved"),
        "window_bounds": ("inclusive", "exclusive"),
    },
    tunables=("block_q", "block_k"),
    domains={"cu_seqlens_q": "cumulative l", "cu_seqlens_k": "cumulative s"},
    unread=unread_tokens,
    foreign=foreign_tokens,
)  # fmt: skip
def varlen_attention(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens_q: np.ndarray,
    cu_seqlens_k: np.ndarray,
    *,
    causal: bool = False,
    window: Window | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    causal_alignment: str = "bottom-right",
    empty_row: str = "zeros",
    head_map: str = "grouped",
    window_bounds: str = "inclusive",
) -> Array:
    """Attention within sequences of any lengths that are packed one after the other.

    Sequence b has the queries from cu_seqlens_q[b] up to, and without, cu_seqlens_q[b + 1], and its keys likewise; either may be
    none. Position and alignment are those within the sequence: with Lq queries and Lk keys, its query i stands at key i + Lk - Lq.

    Args:
        q: queries (total_q, Hq, D).
        k: keys (total_k, Hkv, D); query head h reads key/value head h // (Hq // Hkv).
        v: values (total_k, Hkv, Dv).
        cu_seqlens_q: integers (B + 1,), from 0 to total_q, that never decrease.
        cu_seqlens_k: integers (B + 1,), from 0 to total_k, likewise.
        causal: a query reads the keys of its sequence up to where it stands.
        window: (left, right); a key is read iff -left <= j - (i + Lk - Lq) <= right, None is unbounded.
        softcap: c; the logits become c * tanh(logits / c).
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (total_q, Hq, Dv); zeros for a query that reads no key. What lies in one sequence has no effect on another, NaN included.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: cumulative lengths do not start at 0, decrease, or do not end at the total.
    """
    places, held = zip(*(_padded(edges) for edges in (cu_seqlens_q, cu_seqlens_k)), strict=True)
    queries = np.swapaxes(np.take(q, places[0], axis=0), 1, 2)
    keys, values = (np.where(held[1][:, None, :, None], np.swapaxes(np.take(x, places[1], axis=0), 1, 2), 0.0) for x in (k, v))
    allowed = visible_tokens(
        cu_seqlens_q, cu_seqlens_k, causal=causal, window=window, causal_alignment=causal_alignment, window_bounds=window_bounds
    )
    out = attention.spec(
        queries, keys, values, mask=allowed[:, None], softcap=softcap, scale=scale, head_map=head_map, empty_row=empty_row
    )
    batch, heads, longest, width = out.shape
    tokens = np.swapaxes(out, 1, 2).reshape(batch * longest, heads, width)
    return np.take(tokens, np.flatnonzero(held[0]), axis=0)
