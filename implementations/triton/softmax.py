"""What kernels of softmax attention share: logits of a tile, the online softmax, and the merger of parts over disjoint keys."""

from __future__ import annotations

from implementations.triton.interpreter import kernel, padded, present, register_kernel, small, stored_dtype  # isort: skip  (before Triton)

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["capped", "folded", "merge", "merged", "products", "settled"]

ROWS = 16  # of a program that merges


@triton.jit
def products(q, k_at, some, scale, WIDEN: tl.constexpr):
    """Scaled products of queries (rows, D) and keys (D, keys), whatever the dtype in float32."""
    k = tl.load(k_at, mask=some, other=0.0)
    if WIDEN:
        k = k.to(tl.float32)
    return tl.dot(q, k, input_precision="ieee").to(tl.float32) * scale


@triton.jit
def capped(logits, softcap):
    """softcap tanh(logits / softcap), by an exponential that cannot overflow."""
    small = tl.exp(-2 * tl.abs(logits / softcap))
    return softcap * (1 - small) / (1 + small) * tl.where(logits < 0, -1.0, 1.0)


@triton.jit
def folded(largest, total, acc, logits, v_at, some, WIDEN: tl.constexpr):
    """One more tile of keys: its logits (rows, keys), -inf where they are hidden, and its values (keys, E).

    Milakov & Gimelshein 2018, Algorithm 3, arXiv:1805.02867.
    """
    higher = tl.maximum(largest, tl.max(logits, 1))
    shift = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp(logits - shift[:, None])
    kept = tl.exp(largest - shift)
    v = tl.load(v_at, mask=some, other=0.0)
    if WIDEN:
        v = v.to(tl.float32)
    acc = acc * kept[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee").to(tl.float32)
    return higher, total * kept + tl.sum(weights, 1), acc


@triton.jit
def settled(largest, total, acc):
    """The normalised output (rows, E) and the logarithm of the denominator (rows,); zeros and -inf for a row without keys."""
    nothing = total == 0.0
    divisor = tl.where(nothing, 1.0, total)
    return acc / divisor[:, None], tl.where(nothing, float("-inf"), largest + tl.log(divisor))


@kernel
def _merge(
    OUTS, LSES, OUT, LSE, x_s, x_r, x_e, l_s, l_r, o_r, parts, rows, values, BLOCK_R: tl.constexpr, BLOCK_E: tl.constexpr
):  # fmt: skip
    """Some rows, over all parts. An empty part was perhaps never written: it is left out rather than multiplied by 0."""
    r, e = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R), tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    some = (r[:, None] < rows) & (e[None, :] < values)
    largest = tl.full([BLOCK_R], float("-inf"), tl.float32)
    for part in range(parts):
        lse = tl.load(LSES + part * l_s + r * l_r, mask=r < rows, other=float("-inf")).to(tl.float32)
        largest = tl.maximum(largest, lse)
    shift = tl.where(largest == float("-inf"), 0.0, largest)
    total = tl.zeros([BLOCK_R], tl.float32)
    acc = tl.zeros([BLOCK_R, BLOCK_E], tl.float32)
    for part in range(parts):
        lse = tl.load(LSES + part * l_s + r * l_r, mask=r < rows, other=float("-inf")).to(tl.float32)
        weight = tl.exp(lse - shift)
        written = some & (lse > float("-inf"))[:, None]
        out = tl.load(OUTS + part * x_s + r[:, None] * x_r + e[None, :] * x_e, mask=written, other=0.0).to(tl.float32)
        acc += weight[:, None] * out
        total += weight
    out, lse = settled(shift, total, acc)
    tl.store(OUT + r[:, None] * o_r + e[None, :], out.to(OUT.dtype.element_ty), mask=some)
    tl.store(LSE + r, lse, mask=r < rows)


def merged(outs: Tensor, lses: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Normalised parts over disjoint keys, outs (S, ..., E) and lses (S, ...), as one: (..., E) in a dtype, and (...) in float32."""
    parts, values = lses.shape[0], outs.shape[-1]
    out = outs.new_empty(outs.shape[1:], dtype=stored_dtype(dtype))
    lse = lses.new_empty(lses.shape[1:], dtype=torch.float32)
    rows = lse.numel()
    if rows:
        outs, lses = outs.reshape(parts, rows, values), lses.reshape(parts, rows)
        block = min(padded(values), 64)
        _merge[(triton.cdiv(rows, ROWS), max(triton.cdiv(values, block), 1))](
            present(outs, lse), present(lses, lse), present(out, lse), lse, *outs.stride(), *lses.stride(), values, parts, rows, values,
            BLOCK_R=ROWS, BLOCK_E=block,
        )  # fmt: skip
    return out.to(dtype), lse


@register_kernel(
    "merge_attention_states", name="triton.merge",
    restrictions=small("b * h * l * n", 16384), description="parts over disjoint keys in Triton, two passes over them",
)  # fmt: skip
def merge(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """As the second kernel of flash-decoding does (Dao et al. 2023)."""
    return merged(outs, lses, outs.dtype)
