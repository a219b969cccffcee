"""Sparse attention in Triton: tiles of keys outside the pattern are never visited.

Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv), with any strides.
"""

from __future__ import annotations

from implementations.triton.interpreter import kernel, padded, present, register_kernel, small, stored_dtype, widened  # isort: skip  (before Triton)

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from implementations.triton.softmax import folded, products, settled

__all__ = ["block_sparse", "local_global"]

SMALL = small("b * h * (l + 16) * (s + 16)", 65536)
SIZES = (16, 32, 64)


@kernel
def _local_global(
    Q, K, V, SPECIAL, FLAGS, OUT,
    q_b, q_h, q_l, q_d, k_b, k_h, k_s, k_d, v_b, v_h, v_s, v_e, o_b, o_h, o_l, o_e,
    heads, group, rows, length, width, values, count, reach, scale,
    EVERYTHING: tl.constexpr, CAUSAL: tl.constexpr, ITSELF: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """One tile of queries: the keys of their windows and the global ones, or, of global queries, all keys."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    first = tl.program_id(0) * BLOCK_Q
    r, d, e = first + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    some_q, some_d, some_e = r[:, None] < rows, d < width, e[None, :] < values
    i = r
    start = tl.maximum(first - reach, 0)
    stop = tl.minimum(first + BLOCK_Q + reach, length)
    if EVERYTHING:
        i = tl.load(SPECIAL + r, mask=r < rows, other=0)
        start = 0
        stop = length
    if CAUSAL:
        stop = tl.minimum(stop, tl.max(i, 0) + 1)
    q = tl.load(Q + batch * q_b + head * q_h + i[:, None] * q_l + d[None, :] * q_d, mask=some_q & some_d[None, :], other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    keys = K + batch * k_b + head // group * k_h + d[:, None] * k_d
    shown = V + batch * v_b + head // group * v_h + e[None, :] * v_e
    largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    for begin in range(start, stop, BLOCK_K):
        j = begin + tl.arange(0, BLOCK_K)
        inside = j < stop
        seen = inside[None, :] & some_q
        if EVERYTHING:
            if not ITSELF:
                seen = seen & (j[None, :] != i[:, None])
        else:  # global keys have their turn below
            inside = inside & (tl.load(FLAGS + j, mask=inside, other=1) == 0)
            seen = inside[None, :] & some_q & (tl.abs(j[None, :] - i[:, None]) <= reach)
        if CAUSAL:
            seen = seen & (j[None, :] <= i[:, None])
        logits = products(q, keys + j[None, :] * k_s, inside[None, :] & some_d[:, None], scale, WIDEN)
        logits = tl.where(seen, logits, float("-inf"))
        largest, total, acc = folded(largest, total, acc, logits, shown + j[:, None] * v_s, inside[:, None] & some_e, WIDEN)
    if not EVERYTHING:
        for begin in range(0, count, BLOCK_K):
            n = begin + tl.arange(0, BLOCK_K)
            inside = n < count
            j = tl.load(SPECIAL + n, mask=inside, other=0)
            seen = inside[None, :] & some_q
            if CAUSAL:
                seen = seen & (j[None, :] <= i[:, None])
            if not ITSELF:
                seen = seen & (j[None, :] != i[:, None])
            logits = products(q, keys + j[None, :] * k_s, inside[None, :] & some_d[:, None], scale, WIDEN)
            logits = tl.where(seen, logits, float("-inf"))
            largest, total, acc = folded(largest, total, acc, logits, shown + j[:, None] * v_s, inside[:, None] & some_e, WIDEN)
    out, _lse = settled(largest, total, acc)
    out_at = OUT + batch * o_b + head * o_h + i[:, None] * o_l + e[None, :] * o_e
    tl.store(out_at, out.to(OUT.dtype.element_ty), mask=some_q & some_e)


@register_kernel(
    "local_global_attention", name="triton.local_global", restrictions=SMALL,
    tunables={"block_q": SIZES, "block_k": SIZES}, description="windows, then gathered global keys; global rows by a launch of their own",
)  # fmt: skip
def local_global(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, global_tokens: Sequence[int], causal: bool = False, scale: float | None = None,
    global_self: bool = True, global_rows: bool = True, block_q: int = 64, block_k: int = 32,
) -> Tensor:  # fmt: skip
    """Longformer (Beltagy et al. 2020, section 3.1, arXiv:2004.05150); a global key is none of a window's, so that it counts once."""
    (batch, heads, length, width), groups, values = q.shape, k.shape[1], v.shape[3]
    out = q.new_empty((batch, heads, length, values), dtype=stored_dtype(q.dtype))
    if out.numel() == 0:
        return out.to(q.dtype)
    special = torch.unique(torch.tensor(list(global_tokens), dtype=torch.int64)).to(q.device)
    flags = torch.zeros(length, dtype=torch.uint8, device=q.device)
    flags[special] = 1
    count = len(special)

    def launch(rows: int, everything: bool) -> None:
        _local_global[(triton.cdiv(rows, block_q), batch * heads)](
            present(q, out), present(k, out), v, present(special, flags), flags, out,
            *q.stride(), *k.stride(), *v.stride(), *out.stride(),
            heads, heads // groups, rows, length, width, values, count, min(window, length),
            float(width**-0.5 if scale is None else scale),
            EVERYTHING=everything, CAUSAL=causal, ITSELF=global_self, WIDEN=widened(q.dtype),
            BLOCK_Q=block_q, BLOCK_K=block_k, BLOCK_D=padded(width), BLOCK_E=padded(values),
        )  # fmt: skip

    launch(length, False)
    if global_rows and count:  # over what the first launch has written there
        launch(count, True)
    return out.to(q.dtype)


@kernel
def _block_sparse(
    Q, K, V, MASK, TABLE, COUNTS, OUT,
    q_b, q_h, q_l, q_d, k_b, k_h, k_s, k_d, v_b, v_h, v_s, v_e, m_b, m_h, m_m, m_n, t_b, t_h, t_m, t_n, c_b, c_h, c_m, o_b, o_h, o_l, o_e,
    heads, group, queries, keys, width, values, block_q, block_k, scale,
    CAUSAL: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """One tile of queries, over the tiles of keys that are listed for it."""
    tile = tl.program_id(0)
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    i, d, e = tile * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    some_q, some_d, some_e = i[:, None] < queries, d < width, e[None, :] < values
    q = tl.load(Q + batch * q_b + head * q_h + i[:, None] * q_l + d[None, :] * q_d, mask=some_q & some_d[None, :], other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    for n in range(tl.load(COUNTS + batch * c_b + head * c_h + tile * c_m)):
        j = tl.load(TABLE + batch * t_b + head * t_h + tile * t_m + n * t_n) * BLOCK_K + tl.arange(0, BLOCK_K)
        inside = j < keys
        seen = inside[None, :] & some_q
        mask_at = MASK + batch * m_b + head * m_h + (i // block_q)[:, None] * m_m + (j // block_k)[None, :] * m_n
        seen = seen & (tl.load(mask_at, mask=seen, other=0) != 0)
        if CAUSAL:
            seen = seen & (j[None, :] - i[:, None] <= keys - queries)
        k_at = K + batch * k_b + head // group * k_h + j[None, :] * k_s + d[:, None] * k_d
        logits = products(q, k_at, inside[None, :] & some_d[:, None], scale, WIDEN)
        logits = tl.where(seen, logits, float("-inf"))
        v_at = V + batch * v_b + head // group * v_h + j[:, None] * v_s + e[None, :] * v_e
        largest, total, acc = folded(largest, total, acc, logits, v_at, inside[:, None] & some_e, WIDEN)
    out, _lse = settled(largest, total, acc)
    out_at = OUT + batch * o_b + head * o_h + i[:, None] * o_l + e[None, :] * o_e
    tl.store(out_at, out.to(OUT.dtype.element_ty), mask=some_q & some_e)


def _touched(count: int, size: int, length: int, tile: int, device: torch.device) -> Tensor:
    """Which tiles of a sequence touch which blocks, (tiles, blocks), 1 or 0."""
    starts = torch.arange(0, length, tile, device=device)[:, None]
    blocks = torch.arange(count, device=device) * size
    return ((blocks < (starts + tile).clamp(max=length)) & (blocks + size > starts)).float()


def _listed(block_mask: Tensor, rows: Tensor, columns: Tensor, ahead: Tensor | None) -> tuple[Tensor, Tensor]:
    """The numbers of the tiles of keys that hold an allowed block, in order, (B | 1, Hq | 1, tiles, tiles of keys), and how many they are.

    Args:
        block_mask: (B | 1, Hq | 1, m, n).
        rows: which tiles of queries touch which blocks, (tiles, m).
        columns: which tiles of keys do, (tiles of keys, n).
        ahead: tiles of keys that lie ahead of all queries of a tile, (tiles, tiles of keys).
    """
    allowed = rows @ block_mask.float() @ columns.mT > 0
    if ahead is not None:
        allowed &= ~ahead
    order = torch.sort(allowed.to(torch.uint8), dim=-1, descending=True, stable=True).indices
    return order.to(torch.int32), allowed.sum(dim=-1, dtype=torch.int32)


@register_kernel(
    "block_sparse_attention", name="triton.block_sparse", restrictions=SMALL,
    tunables={"tile_q": SIZES, "tile_k": SIZES}, description="a list of tiles with an allowed block for every tile of queries",
)  # fmt: skip
def block_sparse(
    q: Tensor, k: Tensor, v: Tensor, *, block_mask: Tensor, block_q: int, block_k: int, causal: bool = False, scale: float | None = None,
    tile_q: int = 64, tile_k: int = 32,
) -> Tensor:  # fmt: skip
    """Tiles need not be the blocks: those that hold an allowed block are visited, and the mask is asked within them."""
    (batch, heads, queries, width), (_, groups, keys, values) = q.shape, v.shape
    out = q.new_empty((batch, heads, queries, values), dtype=stored_dtype(q.dtype))
    if out.numel() == 0 or keys == 0:
        return out.zero_().to(q.dtype)
    rows = _touched(block_mask.shape[2], block_q, queries, tile_q, q.device)
    columns = _touched(block_mask.shape[3], block_k, keys, tile_k, q.device)
    ahead = None
    if causal:
        last = (torch.arange(1, len(rows) + 1, device=q.device) * tile_q).clamp(max=queries) - 1 + keys - queries
        ahead = torch.arange(len(columns), device=q.device) * tile_k > last[:, None]
    table, counts = _listed(block_mask, rows, columns, ahead)
    table, counts, mask = (x.expand(batch, heads, *x.shape[2:]) for x in (table, counts, block_mask.view(torch.uint8)))
    _block_sparse[(len(rows), batch * heads)](
        present(q, out), present(k, out), v, mask, table, counts, out,
        *q.stride(), *k.stride(), *v.stride(), *mask.stride(), *table.stride(), *counts.stride(), *out.stride(),
        heads, heads // groups, queries, keys, width, values, block_q, block_k, float(width**-0.5 if scale is None else scale),
        CAUSAL=causal, WIDEN=widened(q.dtype), BLOCK_Q=tile_q, BLOCK_K=tile_k, BLOCK_D=padded(width), BLOCK_E=padded(values),
    )  # fmt: skip
    return out.to(q.dtype)
