"""Gated linear attention in Triton: token by token, and by chunks whose decays are exponentials of differences that are never positive.

All is computed in float32. Shapes: q, k, g (B, H, L, D), v (B, H, L, Dv), state (B, H, D, Dv) -> (B, H, L, Dv) and the last state.
"""

from __future__ import annotations

from implementations.triton.interpreter import kernel, padded, present, register_kernel, small, stored_dtype  # isort: skip  (before Triton)

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from implementations.triton.exponential import exp

__all__ = ["gated_chunked", "gated_recurrent"]

SMALL = small("b * h * (l + 8) * (e + 32)", 32768)
WIDEST = 32  # columns of the state of a program


@kernel
def _recurrent(
    Q, K, V, G, FIRST, OUT, LAST,
    q_b, q_h, q_l, q_d, k_b, k_h, k_l, k_d, v_b, v_h, v_l, v_e, g_b, g_h, g_l, g_d, f_b, f_h, f_d, f_e, o_b, o_h, o_l, o_e,
    s_b, s_h, s_d, s_e, heads, length, width, values, scale,
    HAS_FIRST: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Some columns of the state of one head, from token to token."""
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    d, e = tl.arange(0, BLOCK_D), tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    some_d, some_e = d < width, e < values
    some = some_d[:, None] & some_e[None, :]
    q_at, k_at = Q + batch * q_b + head * q_h + d * q_d, K + batch * k_b + head * k_h + d * k_d
    g_at, v_at = G + batch * g_b + head * g_h + d * g_d, V + batch * v_b + head * v_h + e * v_e
    out_at = OUT + batch * o_b + head * o_h + e * o_e
    state = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
    if HAS_FIRST:
        first_at = FIRST + batch * f_b + head * f_h + d[:, None] * f_d + e[None, :] * f_e
        state = tl.load(first_at, mask=some, other=0.0).to(tl.float32)
    for t in range(length):
        q = tl.load(q_at + t * q_l, mask=some_d, other=0.0).to(tl.float32) * scale
        k = tl.load(k_at + t * k_l, mask=some_d, other=0.0).to(tl.float32)
        g = tl.load(g_at + t * g_l, mask=some_d, other=0.0).to(tl.float32)
        v = tl.load(v_at + t * v_l, mask=some_e, other=0.0).to(tl.float32)
        state = state * exp(g)[:, None] + k[:, None] * v[None, :]
        tl.store(out_at + t * o_l, tl.sum(state * q[:, None], 0).to(OUT.dtype.element_ty), mask=some_e)
    tl.store(LAST + batch * s_b + head * s_h + d[:, None] * s_d + e[None, :] * s_e, state, mask=some)


@kernel
def _chunked(
    Q, K, V, G, FIRST, OUT, LAST,
    q_b, q_h, q_l, q_d, k_b, k_h, k_l, k_d, v_b, v_h, v_l, v_e, g_b, g_h, g_l, g_d, f_b, f_h, f_d, f_e, o_b, o_h, o_l, o_e,
    s_b, s_h, s_d, s_e, heads, length, width, values, scale,
    HAS_FIRST: tl.constexpr, CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Some columns of the state of one head, from chunk to chunk.

    Within a chunk the weight of key j for query i is sum_d q_id k_jd exp(G_id - G_jd), G the sums of the logarithms of the gates since
    the chunk began: the exponential of the difference, as exp(-G_jd) alone overflows.
    """
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    c, d, e = tl.arange(0, CHUNK), tl.arange(0, BLOCK_D), tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    some_d, some_e = d[None, :] < width, e[None, :] < values
    some = (d[:, None] < width) & some_e
    state = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
    if HAS_FIRST:
        first_at = FIRST + batch * f_b + head * f_h + d[:, None] * f_d + e[None, :] * f_e
        state = tl.load(first_at, mask=some, other=0.0).to(tl.float32)
    for begin in range(0, length, CHUNK):
        t = (begin + c)[:, None]
        inside = t < length  # tokens beyond have no key and do not decay
        q = tl.load(Q + batch * q_b + head * q_h + t * q_l + d[None, :] * q_d, mask=inside & some_d, other=0.0).to(tl.float32) * scale
        k = tl.load(K + batch * k_b + head * k_h + t * k_l + d[None, :] * k_d, mask=inside & some_d, other=0.0).to(tl.float32)
        g = tl.load(G + batch * g_b + head * g_h + t * g_l + d[None, :] * g_d, mask=inside & some_d, other=0.0).to(tl.float32)
        v = tl.load(V + batch * v_b + head * v_h + t * v_l + e[None, :] * v_e, mask=inside & some_e, other=0.0).to(tl.float32)
        sums = tl.cumsum(g, 0)
        weights = tl.zeros([CHUNK, CHUNK], tl.float32)
        for j in range(tl.minimum(CHUNK, length - begin)):
            own = (c == j)[:, None]
            key, before = tl.sum(tl.where(own, k, 0.0), 0), tl.sum(tl.where(own, sums, 0.0), 0)
            decay = exp(tl.where((c >= j)[:, None], sums - before[None, :], float("-inf")))
            column = tl.sum(q * key[None, :] * decay, 1)
            weights = tl.where((c == j)[None, :], column[:, None], weights)
        out = tl.dot(weights, v, input_precision="ieee") + tl.dot(q * exp(sums), state, input_precision="ieee")
        out_at = OUT + batch * o_b + head * o_h + t * o_l + e[None, :] * o_e
        tl.store(out_at, out.to(OUT.dtype.element_ty), mask=inside & some_e)
        last = tl.sum(g, 0)
        remaining = k * exp(tl.minimum(last[None, :] - sums, 0.0))
        state = state * exp(last)[:, None] + tl.dot(tl.trans(remaining), v, input_precision="ieee")
    tl.store(LAST + batch * s_b + head * s_h + d[:, None] * s_d + e[None, :] * s_e, state, mask=some)


def _launch(
    program: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float | None, initial_state: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor]:
    (batch, heads, length, width), values = q.shape, v.shape[3]
    out = q.new_empty((batch, heads, length, values), dtype=stored_dtype(q.dtype))
    last = q.new_empty((batch, heads, width, values), dtype=torch.float32)
    block = min(padded(values), WIDEST)
    if batch * heads * values:
        other = out if out.numel() else last
        first = present(initial_state, other)
        program[(batch * heads, triton.cdiv(values, block))](
            *(present(x, other) for x in (q, k, v, g)), first, present(out, other), present(last, other),
            *q.stride(), *k.stride(), *v.stride(), *g.stride(), *((0, 0, 0, 0) if initial_state is None else initial_state.stride()),
            *out.stride(), *last.stride(), heads, length, width, values, float(width**-0.5 if scale is None else scale),
            HAS_FIRST=initial_state is not None, CHUNK=chunk_size, BLOCK_D=padded(width), BLOCK_E=block,
        )  # fmt: skip
    return out.to(q.dtype), last


@register_kernel(
    "gated_linear_attention", name="triton.gated_recurrent", restrictions=SMALL,
    description="token by token in Triton, the columns of the state apart",
)  # fmt: skip
def gated_recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence as it is written (Yang et al. 2023, eq. 3-4, arXiv:2312.06635)."""
    return _launch(_recurrent, q, k, v, g, scale, initial_state, 1)


@register_kernel(
    "gated_linear_attention", name="triton.gated_chunked", restrictions=SMALL,
    tunables={"chunk_size": (16, 32)}, description="by chunks in Triton, decays as exponentials of differences",
)  # fmt: skip
def gated_chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, initial_state: Tensor | None = None, chunk_size: int = 16
) -> tuple[Tensor, Tensor]:
    """Secondary chunks, all of one size (Yang et al. 2023, section 4.3)."""
    return _launch(_chunked, q, k, v, g, scale, initial_state, chunk_size)
