"""Dense attention in Triton: FlashAttention-2's forward pass, and flash-decoding over splits of the keys.

Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv). Strides are those of the arguments, whatever
they are; ragged tiles are masked. Logits, sums and the accumulator are float32.
"""

from __future__ import annotations

from implementations.triton.interpreter import SMALLEST, kernel, padded, present, register_kernel, small, stored_dtype, widened  # isort: skip  (before Triton)

import torch
import triton
import triton.language as tl
from torch import Tensor

from conformance.registry import split_counts
from implementations.tiling import Band, Window
from implementations.triton.softmax import capped, folded, merged, products, settled

__all__ = ["flash", "flash_with_lse", "split_k"]

SMALL = small("b * h * (l + 16) * (s + 16)", 65536)
TILES = {"block_q": (16, 32, 64), "block_k": (16, 32, 64)}


@kernel
def _forward(
    Q, K, V, MASK, BIAS, SINKS, OUT, LSE,
    q_b, q_h, q_l, q_d, k_b, k_h, k_s, k_d, v_b, v_h, v_s, v_e, m_b, m_h, m_l, m_s, a_b, a_h, a_l, a_s, sink_h,
    o_p, o_b, o_h, o_l, o_e, l_p, l_b, l_h, l_l,
    heads, group, queries, keys, width, values, lowest, highest, per_split, scale, softcap,
    HAS_MASK: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_SINKS: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head, over one part of the keys."""
    tile, row, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, head = (row // heads).to(tl.int64), row % heads
    shared, first = head // group, tile * BLOCK_Q
    i, d, e = first + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    some_q, some_d, some_e = i[:, None] < queries, d < width, e[None, :] < values
    q = tl.load(Q + batch * q_b + head * q_h + i[:, None] * q_l + d[None, :] * q_d, mask=some_q & some_d[None, :], other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    # Keys outside the band of this tile need not be visited; the tiles stay where they are.
    start = tl.maximum(part * per_split, tl.maximum(first + lowest, 0) // BLOCK_K * BLOCK_K)
    stop = tl.minimum(tl.minimum((part + 1) * per_split, keys), first + BLOCK_Q + highest)
    largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    if HAS_SINKS:  # joins once, whatever the number of parts
        largest = tl.where(part == 0, tl.load(SINKS + head * sink_h).to(tl.float32), largest)
        total = tl.where(part == 0, 1.0, total)
    acc = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    for begin in range(start, stop, BLOCK_K):
        j = begin + tl.arange(0, BLOCK_K)
        inside = j < stop
        k_at = K + batch * k_b + shared * k_h + j[None, :] * k_s + d[:, None] * k_d
        logits = products(q, k_at, inside[None, :] & some_d[:, None], scale, WIDEN)
        if HAS_SOFTCAP:
            logits = capped(logits, softcap)
        seen = inside[None, :] & some_q
        if HAS_BIAS:
            bias = tl.load(BIAS + batch * a_b + head * a_h + i[:, None] * a_l + j[None, :] * a_s, mask=seen, other=0.0)
            logits += bias.to(tl.float32)
        ahead = j[None, :] - i[:, None]
        seen = seen & (ahead >= lowest) & (ahead <= highest)
        if HAS_MASK:
            seen = seen & (tl.load(MASK + batch * m_b + head * m_h + i[:, None] * m_l + j[None, :] * m_s, mask=seen, other=0) != 0)
        logits = tl.where(seen, logits, float("-inf"))
        v_at = V + batch * v_b + shared * v_h + j[:, None] * v_s + e[None, :] * v_e
        largest, total, acc = folded(largest, total, acc, logits, v_at, inside[:, None] & some_e, WIDEN)
    out, lse = settled(largest, total, acc)
    out_at = OUT + part * o_p + batch * o_b + head * o_h + i[:, None] * o_l + e[None, :] * o_e
    tl.store(out_at, out.to(OUT.dtype.element_ty), mask=some_q & some_e)
    tl.store(LSE + part * l_p + batch * l_b + head * l_h + i * l_l, lse, mask=i < queries)


def _strides(x: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if x is None else x.stride()


def _parts(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, causal: bool, window: Window, softcap: float | None,
    scale: float | None, sinks: Tensor | None, num_splits: int, block_q: int, block_k: int, dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Outputs (S, B, Hq, Lq, Dv) and logsumexps (S, B, Hq, Lq) of S parts of the keys."""
    (batch, heads, queries, width), (_, groups, keys, values) = q.shape, v.shape
    out = q.new_empty((num_splits, batch, heads, queries, values), dtype=stored_dtype(dtype))
    lse = q.new_empty((num_splits, batch, heads, queries), dtype=torch.float32)
    if lse.numel() == 0:
        return out.to(dtype), lse
    band, full = Band.of(queries, keys, causal, window), (batch, heads, queries, keys)
    mask = None if mask is None else mask.expand(full).view(torch.uint8)
    bias = None if bias is None else bias.expand(full)
    per_split = -(-keys // num_splits)
    per_split = -(-per_split // block_k) * block_k or block_k
    grid = (triton.cdiv(queries, block_q), batch * heads, num_splits)
    _forward[grid](
        *(present(x, lse) for x in (q, k, v, mask, bias, sinks, out)), lse,
        *q.stride(), *k.stride(), *v.stride(), *_strides(mask), *_strides(bias),
        0 if sinks is None else sinks.stride(0), *out.stride(), *lse.stride(),
        heads, heads // groups, queries, keys, width, values, band.lowest, band.highest, per_split,
        float(width**-0.5 if scale is None else scale), 0.0 if softcap is None else float(softcap),
        HAS_MASK=mask is not None, HAS_BIAS=bias is not None, HAS_SOFTCAP=softcap is not None, HAS_SINKS=sinks is not None,
        WIDEN=widened(q.dtype), BLOCK_Q=block_q, BLOCK_K=block_k, BLOCK_D=padded(width), BLOCK_E=padded(values),
    )  # fmt: skip
    return out.to(dtype), lse


@register_kernel(
    "attention_with_lse", name="triton.flash_with_lse", restrictions=SMALL, tunables=TILES,
    description="FlashAttention-2 in Triton, with the logsumexp",
)  # fmt: skip
def flash_with_lse(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None, causal: bool = False,
    window: Window = None, softcap: float | None = None, scale: float | None = None, sinks: Tensor | None = None,
    block_q: int = 64, block_k: int = 32,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Queries outer, keys inner, normalised once (Dao 2023, Algorithm 1, arXiv:2307.08691)."""
    out, lse = _parts(q, k, v, mask, bias, causal, window, softcap, scale, sinks, 1, block_q, block_k, q.dtype)
    return out[0], lse[0]


@register_kernel(
    "attention", name="triton.flash", restrictions=SMALL, tunables=TILES,
    description="FlashAttention-2 in Triton",
)  # fmt: skip
def flash(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None, causal: bool = False,
    window: Window = None, softcap: float | None = None, scale: float | None = None, sinks: Tensor | None = None,
    block_q: int = 64, block_k: int = 32,
) -> Tensor:  # fmt: skip
    """`flash_with_lse`, whose logsumexp nobody wants."""
    return _parts(q, k, v, mask, bias, causal, window, softcap, scale, sinks, 1, block_q, block_k, q.dtype)[0][0]


@register_kernel(
    "attention", name="triton.split_k", restrictions=SMALL,
    tunables={"num_splits": split_counts, "block_k": TILES["block_k"]}, description="flash-decoding in Triton: parts of the keys, merged",
)  # fmt: skip
def split_k(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None, causal: bool = False,
    window: Window = None, softcap: float | None = None, scale: float | None = None, sinks: Tensor | None = None,
    num_splits: int = 4, block_k: int = 32,
) -> Tensor:  # fmt: skip
    """Each part of the keys has programs of its own; their float32 results are merged by logsumexp (Dao et al. 2023, flash-decoding)."""
    parts = _parts(q, k, v, mask, bias, causal, window, softcap, scale, sinks, num_splits, SMALLEST, block_k, torch.float32)
    return merged(*parts, q.dtype)[0]
