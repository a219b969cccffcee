"""Sparse attention: softmax attention under a set of allowed keys that options define.

Each method here says which keys a query reads and leaves the rest to `oracle.dense`: a row that may read no key gives
zeros, grouped heads share keys and values, finite garbage in keys that nobody reads does not show.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.dense import GROUPED, Array, attention, unread_by

__all__ = [
    "bigbird_attention", "block_sparse_attention", "fixed_attention", "local_global_attention", "pattern_attention", "strided_attention",
]  # fmt: skip

SHAPES = "q: b h l d, k: b g s d, v: b g s e"
SQUARE = {**GROUPED, "l == s": "as many queries as keys"}
REFUSABLE = {"h == g": "grouped heads"}
Visible = Callable[[Mapping[str, Any], Mapping[str, int]], np.ndarray]


def _positions(sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of queries (Lq, 1) and of keys (1, Lk)."""
    return np.arange(sizes["l"])[:, None], np.arange(sizes["s"])[None, :]


def _attend(visible: Visible, q: Array, k: Array, v: Array, scale: float | None, **options: Any) -> Array:
    """Dense attention to the visible keys."""
    sizes = {"b": q.shape[0], "h": q.shape[1], "l": q.shape[2], "s": k.shape[2]}
    return attention.spec(q, k, v, mask=visible(options, sizes), scale=scale)


def local_global_keys(arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Keys of `local_global_attention`, (L, L)."""
    i, j = _positions(sizes)
    special = np.isin(np.arange(sizes["s"]), np.asarray(arguments["global_tokens"], dtype=np.int64))
    rows, columns = special[: sizes["l"], None], special[None, :]
    allowed = (np.abs(i - j) <= arguments["window"]) | columns
    if arguments.get("global_rows", True):
        allowed = allowed | rows
    if not arguments.get("global_self", True):
        allowed = allowed & ~(rows & (i == j))
    return allowed & (j <= i) if arguments.get("causal") else allowed


@method(
    source="Beltagy et al. 2020, section 3.1, arXiv:2004.05150",
    shapes=f"{SHAPES} -> b h l e",
    where=SQUARE,
    options={
        "window": "count", "global_tokens": "positions", "causal": "flag", "scale": "real", "global_self": "flag", "global_rows": "flag",
    },
    tunables=("block_q", "block_k"),
    visible=local_global_keys,
    unread=unread_by(local_global_keys),
    refusable=REFUSABLE,
)  # fmt: skip
def local_global_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    window: int,
    global_tokens: Sequence[int],
    causal: bool = False,
    scale: float | None = None,
    global_self: bool = True,
    global_rows: bool = True,
) -> Array:
    """Attention to neighbours and to a few global tokens, which see and are seen by all (Longformer).

    Query i reads key j iff |i - j| <= window, or j is global, or i is.

    Args:
        q: queries (B, Hq, L, D).
        k: keys (B, Hkv, L, D).
        v: values (B, Hkv, L, Dv).
        window: how far a query sees to either side.
        global_tokens: positions; their order and duplicates do not matter.
        causal: only keys j <= i, global ones too.
        scale: of the logits; 1 / sqrt(D) by default.
        global_self: False: a global query does not attend to itself.
        global_rows: False: a global query sees only its window and the global keys.

    Returns:
        (B, Hq, L, Dv).

    Raises:
        OptionError: a global token lies outside the sequence.
    """
    return _attend(
        local_global_keys, q, k, v, scale, window=window, global_tokens=global_tokens, causal=causal, global_self=global_self,
        global_rows=global_rows,
    )  # fmt: skip


def strided_keys(arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Keys of `strided_attention`, (L, L)."""
    i, j = _positions(sizes)
    return (j <= i) & ((i - j < arguments["stride"]) | ((i - j) % arguments["stride"] == 0))


@method(
    source="Child et al. 2019, section 4.3, arXiv:1904.10509",
    shapes=f"{SHAPES} -> b h l e",
    where=SQUARE,
    options={"stride": "size", "scale": "real"},
    tunables=("block_q", "block_k"),
    visible=strided_keys,
    unread=unread_by(strided_keys),
    refusable=REFUSABLE,
)
def strided_attention(q: Array, k: Array, v: Array, *, stride: int, scale: float | None = None) -> Array:
    """Causal attention to the last keys and to every stride-th key before (Sparse Transformer).

    Query i reads key j <= i iff i - j < stride or (i - j) mod stride = 0.

    Args:
        q: queries (B, Hq, L, D).
        k: keys (B, Hkv, L, D).
        v: values (B, Hkv, L, Dv).
        stride: how many keys back are read, and every which one before them.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, L, Dv).
    """
    return _attend(strided_keys, q, k, v, scale, stride=stride)


def fixed_keys(arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Keys of `fixed_attention`, (L, L)."""
    (i, j), stride = _positions(sizes), arguments["stride"]
    return (j <= i) & ((i // stride == j // stride) | (j % stride >= stride - arguments.get("c", 1)))


@method(
    source="Child et al. 2019, section 4.3, arXiv:1904.10509",
    shapes=f"{SHAPES} -> b h l e",
    where={**SQUARE, "c is None or c <= stride": "no more summary positions than a block has"},
    options={"stride": "size", "c": "size", "scale": "real"},
    tunables=("block_q", "block_k"),
    visible=fixed_keys,
    unread=unread_by(fixed_keys),
    refusable=REFUSABLE,
)
def fixed_attention(q: Array, k: Array, v: Array, *, stride: int, c: int = 1, scale: float | None = None) -> Array:
    """Causal attention within blocks and to the last keys of every earlier block (Sparse Transformer).

    Query i reads key j <= i iff both lie in the same block of stride, or j mod stride >= stride - c.

    Args:
        q: queries (B, Hq, L, D).
        k: keys (B, Hkv, L, D).
        v: values (B, Hkv, L, Dv).
        stride: length of a block.
        c: how many keys at the end of a block all later queries read; at most stride.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, L, Dv).
    """
    return _attend(fixed_keys, q, k, v, scale, stride=stride, c=c)


def bigbird_keys(arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Keys of `bigbird_attention`, (L, L)."""
    size, first, chosen = arguments["block_size"], arguments["global_blocks"], np.asarray(arguments["random_blocks"])
    count = -(-sizes["s"] // size)
    i, j = np.arange(count)[:, None], np.arange(count)[None, :]
    reach = arguments["window_blocks"] if arguments.get("window_count") == "each-side" else (arguments["window_blocks"] - 1) // 2
    blocks = (np.abs(i - j) <= reach) | (i < first) | (j < first)
    if chosen.size:
        blocks = blocks | (chosen[:, :, None] == j[:, None, :]).any(axis=1)
    return np.repeat(np.repeat(blocks, size, axis=0), size, axis=1)[: sizes["l"], : sizes["s"]]


@method(
    source="Zaheer et al. 2020, section 2 and appendix D, arXiv:2007.14062",
    shapes=f"{SHAPES}, random_blocks: int m r -> b h l e",
    where={**SQUARE, "window_blocks % 2 == 1": "the window is centred on the block of the query"},
    options={"block_size": "size", "window_blocks": "size", "global_blocks": "count", "scale": "real"},
    conventions={"window_count": ("total", "each-side")},
    derived={"m": "-(-s // block_size)"},
    domains={"random_blocks": "index m"},
    visible=bigbird_keys,
    unread=unread_by(bigbird_keys),
    refusable=REFUSABLE,
)
def bigbird_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    block_size: int,
    window_blocks: int,
    global_blocks: int,
    random_blocks: np.ndarray,
    scale: float | None = None,
    window_count: str = "total",
) -> Array:
    """Attention between blocks: a window, the first blocks, and some chosen at random (BigBird). Not causal.

    A query in block I reads the keys of block J iff |I - J| <= (window_blocks - 1) / 2, or I or J is one of the first
    global_blocks, or J is one of random_blocks[I]; a block that qualifies twice counts once. The last block may be shorter.

    Args:
        q: queries (B, Hq, L, D).
        k: keys (B, Hkv, L, D).
        v: values (B, Hkv, L, Dv).
        block_size: tokens of a block.
        window_blocks: blocks in a window, the query's own in the middle; odd.
        global_blocks: how many blocks at the start see and are seen by all.
        random_blocks: integers (ceil(L / block_size), r), the blocks that those of each query block read.
        scale: of the logits; 1 / sqrt(D) by default.
        window_count: whether window_blocks counts all blocks of a window or those on each side.

    Returns:
        (B, Hq, L, Dv).
    """
    return _attend(
        bigbird_keys, q, k, v, scale, block_size=block_size, window_blocks=window_blocks, global_blocks=global_blocks,
        random_blocks=random_blocks, window_count=window_count,
    )  # fmt: skip


def block_sparse_keys(arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Keys of `block_sparse_attention`, (B | 1, Hq | 1, Lq, Lk)."""
    tokens = np.repeat(arguments["block_mask"], arguments["block_q"], axis=2)[:, :, : sizes["l"]]
    allowed = np.repeat(tokens, arguments["block_k"], axis=3)[..., : sizes["s"]]
    if arguments.get("causal"):
        i, j = _positions(sizes)
        allowed = allowed & (j <= i + sizes["s"] - sizes["l"])
    return allowed


@method(
    source="Dao et al. 2022, section 3.3, arXiv:2205.14135; Child et al. 2019, section 5.3, arXiv:1904.10509",
    shapes=f"{SHAPES}, block_mask: bool b|1 h|1 m n -> b h l e",
    where=GROUPED,
    options={"block_q": "size", "block_k": "size", "causal": "flag", "scale": "real"},
    derived={"m": "-(-l // block_q)", "n": "-(-s // block_k)"},
    visible=block_sparse_keys,
    unread=unread_by(block_sparse_keys),
    refusable=REFUSABLE,
)
def block_sparse_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    block_mask: np.ndarray,
    block_q: int,
    block_k: int,
    causal: bool = False,
    scale: float | None = None,
) -> Array:
    """Attention between the blocks of queries and keys that a mask of blocks allows.

    Args:
        q: queries (B, Hq, Lq, D).
        k: keys (B, Hkv, Lk, D).
        v: values (B, Hkv, Lk, Dv).
        block_mask: bool (B or 1, Hq or 1, ceil(Lq / block_q), ceil(Lk / block_k)); True means "may attend".
        block_q: queries of a block; the last one may be shorter.
        block_k: keys of a block; likewise.
        causal: key j is allowed for query i only if j <= i + Lk - Lq.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, Lq, Dv); zeros for a query without allowed keys.
    """
    return _attend(block_sparse_keys, q, k, v, scale, block_mask=block_mask, block_q=block_q, block_k=block_k, causal=causal)


def pattern_keys(arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Keys of `pattern_attention`, (Lq, Lk)."""
    i, j = _positions(sizes)
    return np.broadcast_to(np.asarray(arguments["pattern"](i, j), dtype=bool), (sizes["l"], sizes["s"]))


@method(
    source="Child et al. 2019, eq. 2, arXiv:1904.10509",
    shapes=f"{SHAPES} -> b h l e",
    where=GROUPED,
    options={"pattern": "pattern", "scale": "real"},
    tunables=("block_q", "block_k"),
    visible=pattern_keys,
    unread=unread_by(pattern_keys),
    refusable=REFUSABLE,
)
def pattern_attention(q: Array, k: Array, v: Array, *, pattern: Callable[[Any, Any], Any], scale: float | None = None) -> Array:
    """Attention to the keys that a pattern of the caller's own allows.

    Args:
        q: queries (B, Hq, Lq, D).
        k: keys (B, Hkv, Lk, D).
        v: values (B, Hkv, Lk, Dv).
        pattern: from the positions i of a query and j of a key, both counted from 0, to whether it may attend. It is called
            with integers, or with arrays of them that broadcast against each other.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, Lq, Dv); zeros for a query without allowed keys.
    """
    return _attend(pattern_keys, q, k, v, scale, pattern=pattern)
