"""Attention on quantised operands in PyTorch, with its own float8 dtypes, on any device.

Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv).
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.nn.functional import pad

from conformance import register
from conformance.registry import block_sizes
from implementations.tiling import Band, tiles
from implementations.torch.features import rounded
from implementations.torch.logits import grouped_matmul, working_dtype
from implementations.torch.masks import band_mask
from implementations.torch.microscaling import blocks_of, nvfp4
from implementations.torch.quantisation import cast, scales_of
from implementations.torch.softmax import normalised, row_shift

__all__ = ["fp8_attention", "sage_attention"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def in_blocks(x: Tensor, form: str, size: int) -> tuple[Tensor, Tensor]:
    """Codes of blocks of tokens in their own dtype, and the scale of every token (B, H, L, 1)."""
    scales = scales_of(x, form, "block", size).repeat_interleave(size, dim=2)[:, :, : x.shape[2]]
    return cast(x / scales, form), scales


def rotated(x: Tensor, signs: Tensor) -> Tensor:
    """Rows times the signs and the Hadamard matrix over sqrt(D), as a Kronecker product of two smaller ones where that is possible."""
    width = x.shape[-1]
    inner = 1 << (width.bit_length() - 1) // 2
    first, second = (_hadamard(size, x) for size in (width // inner, inner))
    out = (x * signs.to(x.dtype)).reshape(*x.shape[:-1], width // inner, inner)
    return (first @ out @ second).flatten(-2) / width**0.5


def _hadamard(width: int, like: Tensor) -> Tensor:
    numbers = torch.arange(width, device=like.device)
    common = numbers[:, None] & numbers
    parity = torch.zeros_like(common)
    while bool(common.any()):
        parity, common = parity ^ common & 1, common >> 1
    return (1 - 2 * parity).to(like.dtype)


def _attend(logits: Tensor, allowed: Tensor) -> Tensor:
    """Weights that are not normalised, (B, Hq, rows, Lk)."""
    logits = logits.masked_fill(~allowed, -inf)
    return torch.exp(logits - row_shift(logits.amax(dim=-1, keepdim=True)))


@register(
    "fp8_attention", backend="torch", name="torch.fp8_attention", dtypes=DTYPES, tunables={"block_q": block_sizes},
    description="torch.float8_e4m3fn and e5m2, whole rows of weights in e4m3",
)  # fmt: skip
def fp8_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    signs: Tensor | None = None,
    format: str = "float8_e4m3fn",
    query_block: int = 64,
    key_block: int = 64,
    causal: bool = False,
    scale: float | None = None,
    block_q: int = 64,
) -> Tensor:
    """The scales of keys go into the logits, those of values into the weights before these are rounded: a scale is no power of two."""
    dtype = working_dtype(q)
    a, b, c = (x.to(dtype) for x in (q, k, v))
    if signs is not None:
        a, b = rotated(a, signs), rotated(b, signs)
    (a, a_scales), (b, b_scales), (c, c_scales) = (
        in_blocks(a, format, query_block),
        in_blocks(b, format, key_block),
        in_blocks(c, format, key_block),
    )
    keys, group = k.shape[2], q.shape[1] // k.shape[1]
    factor = q.shape[3] ** -0.5 if scale is None else scale
    by_key = b_scales.mT.repeat_interleave(group, dim=1) * factor
    band, gathered = Band.of(q.shape[2], keys, causal, None), [q.new_zeros((*q.shape[:2], 0, v.shape[3]))]
    for rows in tiles(slice(0, q.shape[2]), block_q) if keys else ():
        logits = grouped_matmul(a[:, :, rows].to(dtype), b.to(dtype).mT) * a_scales[:, :, rows] * by_key
        weights = _attend(logits, band_mask(band, rows, slice(0, keys), q.device))
        weighted = grouped_matmul(weights.to(torch.float8_e4m3fn).to(dtype), c.to(dtype) * c_scales)
        gathered.append(normalised(weighted, weights.sum(dim=-1, keepdim=True)).to(q.dtype))
    return torch.cat(gathered, dim=2) if keys else q.new_zeros((*q.shape[:3], v.shape[3]))


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of int8, exact, (B, Hq, L, D) x (B, Hkv, Lk, D) -> (B, Hq, L, Lk)."""
    # CUDA has no product of int32 tensors.
    exact = torch.int32 if a.device.type == "cpu" else torch.float64
    return grouped_matmul(a.to(exact), b.to(exact).mT)


def _weights_in_fp4(weights: Tensor, tile: int) -> Tensor:
    """All tiles at once: rows cut into tiles, each scaled so that its largest weight is the largest element times the largest scale."""
    keys = weights.shape[-1]
    cut = blocks_of(weights, tile)
    scale = cut.amax(dim=-1, keepdim=True) / (6 * 448)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (nvfp4(cut / scale) * scale).flatten(-2)[..., :keys]


@register(
    "sage_attention", backend="torch", name="torch.sage_attention", dtypes=DTYPES, tunables={"block_q": block_sizes},
    description="int32 products of int8, or NVFP4; weights of int8 in the storage dtype",
)  # fmt: skip
def sage_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    format: str = "int8",
    query_block: int = 128,
    key_block: int = 64,
    smooth_k: bool = True,
    smooth_q: bool = False,
    causal: bool = False,
    scale: float | None = None,
    block_q: int = 64,
) -> Tensor:
    """Queries are scaled before they are quantised, which changes their scale and not their codes."""
    dtype, (keys, group) = working_dtype(q), (k.shape[2], q.shape[1] // k.shape[1])
    if not keys:
        return q.new_zeros((*q.shape[:3], v.shape[3]))
    a, b, c = (x.to(dtype) for x in (q, k, v))
    if smooth_k:
        b = rounded(b - rounded(b.mean(dim=2, keepdim=True), k), k)
    added = None
    if smooth_q:
        count = -(-q.shape[2] // query_block)
        sums = pad(a, (0, 0, 0, count * query_block - q.shape[2])).reshape(*q.shape[:2], count, query_block, q.shape[3]).sum(dim=3)
        lengths = torch.full((count, 1), query_block, dtype=dtype, device=q.device)
        lengths[-1:] = q.shape[2] - (count - 1) * query_block
        means = (sums / lengths).repeat_interleave(query_block, dim=2)[:, :, : q.shape[2]]
        a, added = a - means, grouped_matmul(means, b.mT)
    if format == "int8":
        (a, a_scales), (b, b_scales) = in_blocks(a, format, query_block), in_blocks(b, format, key_block)
        by_key = b_scales.mT.repeat_interleave(group, dim=1)
    else:
        a, b, c = nvfp4(a), nvfp4(b), nvfp4(c.mT).mT
    factor = q.shape[3] ** -0.5 if scale is None else scale
    band, gathered = Band.of(q.shape[2], keys, causal, None), [q.new_zeros((*q.shape[:2], 0, v.shape[3]))]
    for rows in tiles(slice(0, q.shape[2]), block_q):
        if format == "int8":
            logits = _products(a[:, :, rows], b).to(dtype) * (a_scales[:, :, rows] * by_key)
        else:
            logits = grouped_matmul(a[:, :, rows], b.mT)
        logits = logits if added is None else logits + added[:, :, rows]
        weights = _attend(logits * factor, band_mask(band, rows, slice(0, keys), q.device))
        used = rounded(weights, q) if format == "int8" else _weights_in_fp4(weights, key_block)
        gathered.append(normalised(grouped_matmul(used, c), weights.sum(dim=-1, keepdim=True)).to(q.dtype))
    return torch.cat(gathered, dim=2)
