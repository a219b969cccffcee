"""Decoding over a cache in blocks, in Triton: flash-decoding through a table of blocks.

Shapes: q (B, Hq, D), pages (num_blocks, block_size, Hkv, D | Dv), block_table (B, max_blocks), context_lens (B,) -> (B, Hq, Dv).
"""

from __future__ import annotations

from implementations.triton.interpreter import SMALLEST, kernel, padded, present, register_kernel, small, widened  # isort: skip  (before Triton)

import torch
import triton
import triton.language as tl
from torch import Tensor

from conformance.registry import split_counts
from implementations.caches import check_cache
from implementations.tiling import Window
from implementations.triton.softmax import capped, folded, merged, products, settled

__all__ = ["paged"]


@kernel
def _decode(
    Q, K, V, TABLE, CONTEXTS, OUT, LSE,
    q_b, q_h, q_d, k_n, k_s, k_h, k_d, v_n, v_s, v_h, v_e, t_b, t_n, c_b, o_p, o_b, o_h, o_e, l_p, l_b, l_h,
    group, tiles, width, values, block_size, left, scale, softcap,
    HAS_SOFTCAP: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Some query heads of one key/value head of one sequence, over one part of its context."""
    sequence, shared, part = tl.program_id(0).to(tl.int64), tl.program_id(1) // tiles, tl.program_id(2)
    r, d, e = tl.program_id(1) % tiles * BLOCK_H + tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    head = shared * group + r
    some_h, some_d, some_e = r[:, None] < group, d < width, e[None, :] < values
    q = tl.load(Q + sequence * q_b + head[:, None] * q_h + d[None, :] * q_d, mask=some_h & some_d[None, :], other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    context = tl.load(CONTEXTS + sequence * c_b).to(tl.int32)
    first = tl.maximum(context - 1 - left, 0)
    parts = tl.num_programs(2)
    share = (context - first + parts - 1) // parts
    start = first + part * share
    stop = tl.minimum(start + share, context)
    largest = tl.full([BLOCK_H], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    acc = tl.zeros([BLOCK_H, BLOCK_E], tl.float32)
    for begin in range(start, stop, BLOCK_K):
        place = begin + tl.arange(0, BLOCK_K)
        inside = place < stop  # nothing is read beyond: neither an entry of the table nor what may be NaN in a block
        block = tl.load(TABLE + sequence * t_b + place // block_size * t_n, mask=inside, other=0).to(tl.int64)
        offset = place % block_size
        k_at = K + shared * k_h + (block * k_n + offset * k_s)[None, :] + d[:, None] * k_d
        logits = products(q, k_at, inside[None, :] & some_d[:, None], scale, WIDEN)
        if HAS_SOFTCAP:
            logits = capped(logits, softcap)
        logits = tl.where(inside[None, :] & some_h, logits, float("-inf"))
        v_at = V + shared * v_h + (block * v_n + offset * v_s)[:, None] + e[None, :] * v_e
        largest, total, acc = folded(largest, total, acc, logits, v_at, inside[:, None] & some_e, WIDEN)
    out, lse = settled(largest, total, acc)
    tl.store(OUT + part * o_p + sequence * o_b + head[:, None] * o_h + e[None, :] * o_e, out, mask=some_h & some_e)
    tl.store(LSE + part * l_p + sequence * l_b + head * l_h, lse, mask=r < group)


@register_kernel(
    "paged_attention", name="triton.paged", restrictions=small("b * g * (max_blocks * block_size + 64)", 8192),
    tunables={"num_splits": split_counts, "block_k": (16, 32, 64)}, description="flash-decoding in Triton through the table of blocks",
)  # fmt: skip
def paged(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, block_table: Tensor, context_lens: Tensor, *, scale: float | None = None,
    window: Window = None, softcap: float | None = None, num_splits: int = 4, block_k: int = 32,
) -> Tensor:  # fmt: skip
    """The heads of a group share what is loaded; each part of a context has programs of its own (Dao et al. 2023, flash-decoding)."""
    check_cache(block_table.tolist(), context_lens.tolist(), *k_pages.shape[:2])
    (batch, heads, width), (size, groups, values) = q.shape, v_pages.shape[1:]
    out = q.new_empty((num_splits, batch, heads, values), dtype=torch.float32)
    lse = q.new_empty((num_splits, batch, heads), dtype=torch.float32)
    places = block_table.shape[1] * size
    left = places if window is None or window[0] is None else min(window[0], places)
    if lse.numel():
        group = heads // groups
        tiles = triton.cdiv(group, SMALLEST)
        _decode[(batch, groups * tiles, num_splits)](
            *(present(x, lse) for x in (q, k_pages, v_pages)), present(block_table, context_lens), context_lens, present(out, lse), lse,
            *q.stride(), *k_pages.stride(), *v_pages.stride(), *block_table.stride(), *context_lens.stride(), *out.stride(), *lse.stride(),
            group, tiles, width, values, size, left,
            float(width**-0.5 if scale is None else scale), 0.0 if softcap is None else float(softcap),
            HAS_SOFTCAP=softcap is not None, WIDEN=widened(q.dtype),
            BLOCK_H=SMALLEST, BLOCK_K=block_k, BLOCK_D=padded(width), BLOCK_E=padded(values),
        )  # fmt: skip
    return merged(out, lse, q.dtype)[0]
