"""Attention on quantised operands in NumPy, tile by tile with an online softmax.

Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.logits import grouped_matmul, working_dtype
from implementations.numpy.microscaling import nvfp4
from implementations.numpy.quantisation import float8_bits, to_odd
from implementations.numpy.softmax import normalised, row_shift
from implementations.tiling import Band, tiles

__all__ = ["fp8_attention", "sage_attention"]

Array = Any  # an ndarray, of a dtype of ml_dtypes perhaps

DTYPES = ("float32", "float64", "float16", "bfloat16")
LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}


def in_blocks(x: Array, form: str, size: int) -> tuple[Array, Array]:
    """Codes of blocks of tokens, as integers or as floats that float8 has, and the scale of every token (B, H, L, 1)."""
    scales = np.ones((*x.shape[:2], x.shape[2], 1), x.dtype)
    for rows in tiles(slice(0, x.shape[2]), size):
        own = np.abs(x[:, :, rows]).max(axis=(2, 3), keepdims=True) / x.dtype.type(LARGEST[form])
        scales[:, :, rows] = np.where(own == 0, 1, own)  # it may underflow
    if form == "int8":
        return np.rint(x / scales).astype(np.int32), scales
    return float8_bits(to_odd(x / scales), form).view(getattr(ml_dtypes, form)).astype(x.dtype), scales


def rotated(x: Array, signs: Array) -> Array:
    """Rows times the signs and the Hadamard matrix over sqrt(D), by log2(D) rounds of sums and differences."""
    out = x * signs.astype(x.dtype)
    width, half = x.shape[-1], 1
    while half < width:
        pairs = out.reshape(*x.shape[:-1], width // (2 * half), 2, half)
        out = np.concatenate([pairs[..., :1, :] + pairs[..., 1:, :], pairs[..., :1, :] - pairs[..., 1:, :]], axis=-2).reshape(x.shape)
        half *= 2
    return out * x.dtype.type(width**-0.5)


class Rows:
    """Rows of attention that see their keys a tile at a time; weights may be rounded before they meet the values."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.maximum = np.full((*shape[:3], 1), -np.inf, dtype)
        self.total, self.weighted = np.zeros_like(self.maximum), np.zeros(shape, dtype)

    def update(self, logits: Array, values: Array, rounded: Any) -> None:
        """Take in one tile: logits (B, Hq, rows, keys) and values (B, Hkv, keys, Dv)."""
        maximum = np.maximum(self.maximum, logits.max(axis=-1, keepdims=True))
        shift = row_shift(maximum)
        weights, decay = np.exp(logits - shift), np.exp(self.maximum - shift)
        self.maximum, self.total = maximum, decay * self.total + weights.sum(axis=-1, keepdims=True)
        self.weighted = decay * self.weighted + grouped_matmul(rounded(weights), values)


def _hidden(band: Band, rows: slice, keys: slice) -> Array:
    distance = np.arange(keys.start, keys.stop) - np.arange(rows.start, rows.stop)[:, None]
    return (distance < band.lowest) | (distance > band.highest)


def _through_float8(weights: Array) -> Array:
    return weights.astype(ml_dtypes.float8_e4m3fn).astype(weights.dtype)


def _through_fp4(weights: Array) -> Array:
    """A tile of weights in NVFP4, each row scaled so that its largest is the largest element times the largest scale."""
    largest = weights.max(axis=-1, keepdims=True)
    scale = np.where(largest == 0, 1, largest) / weights.dtype.type(6 * 448)
    return nvfp4(weights / scale) * scale


@register(
    "fp8_attention", backend="numpy", name="numpy.fp8_attention", dtypes=DTYPES, tunables={"block_q": block_sizes, "block_k": block_sizes},
    description="float8 by bits, weights in e4m3 under the running maximum",
)  # fmt: skip
def fp8_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    signs: Array | None = None,
    format: str = "float8_e4m3fn",
    query_block: int = 64,
    key_block: int = 64,
    causal: bool = False,
    scale: float | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Array:
    """Tiles of the loop need not be the blocks of the scales: every token knows its own."""
    wide = [x.astype(working_dtype(q)) for x in (q, k, v)]
    if signs is not None:
        wide[:2] = [rotated(x, signs) for x in wide[:2]]
    (a, a_scales), (b, b_scales), (c, c_scales) = (
        in_blocks(x, format, size) for x, size in zip(wide, (query_block, key_block, key_block), strict=True)
    )
    factor = a.dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    band, group = Band.of(q.shape[2], k.shape[2], causal, None), q.shape[1] // k.shape[1]
    by_key = np.repeat(b_scales.swapaxes(2, 3) * factor, group, axis=1)
    out = np.empty((*q.shape[:3], v.shape[3]), q.dtype)
    for rows in tiles(slice(0, q.shape[2]), block_q):
        state = Rows(out[:, :, rows].shape, a.dtype)
        for keys in tiles(band.keys_of(rows), block_k):
            logits = grouped_matmul(a[:, :, rows], b[:, :, keys].swapaxes(2, 3)) * (a_scales[:, :, rows] * by_key[..., keys])
            logits = np.where(_hidden(band, rows, keys), -np.inf, logits)
            state.update(logits, c[:, :, keys] * c_scales[:, :, keys], _through_float8)
        out[:, :, rows] = normalised(state.weighted, state.total)
    return out


@register(
    "sage_attention", backend="numpy", name="numpy.sage_attention", dtypes=DTYPES,
    tunables={"block_q": block_sizes, "block_k": block_sizes}, description="integer products, or NVFP4 with weights in tiles of key_block",
)  # fmt: skip
def sage_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    format: str = "int8",
    query_block: int = 128,
    key_block: int = 64,
    smooth_k: bool = True,
    smooth_q: bool = False,
    causal: bool = False,
    scale: float | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Array:
    """Products of int8 are exact in integers; the tile of NVFP4 is a part of its meaning and no tunable."""
    a, b, c = (x.astype(working_dtype(q)) for x in (q, k, v))
    if smooth_k and k.shape[2]:
        b = b - b.mean(axis=2, keepdims=True)
    means = np.zeros_like(a)
    for rows in tiles(slice(0, q.shape[2]), query_block) if smooth_q else ():
        means[:, :, rows] = a[:, :, rows].mean(axis=2, keepdims=True)
    smooth, a = b, a - means
    if format == "int8":
        (a, a_scales), (b, b_scales) = in_blocks(a, format, query_block), in_blocks(b, format, key_block)
    else:
        a, b, c = nvfp4(a), nvfp4(b), nvfp4(c.swapaxes(2, 3)).swapaxes(2, 3)
        a_scales, b_scales, block_k = np.ones_like(a[..., :1]), np.ones_like(b[..., :1]), key_block
    factor = c.dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    band, group = Band.of(q.shape[2], k.shape[2], causal, None), q.shape[1] // k.shape[1]
    by_key = np.repeat(b_scales.swapaxes(2, 3), group, axis=1)
    out = np.empty((*q.shape[:3], v.shape[3]), q.dtype)
    for rows in tiles(slice(0, q.shape[2]), block_q):
        state = Rows(out[:, :, rows].shape, c.dtype)
        for keys in tiles(slice(0, band.keys_of(rows).stop), block_k):
            products = grouped_matmul(a[:, :, rows], b[:, :, keys].swapaxes(2, 3)).astype(c.dtype)
            products = products * a_scales[:, :, rows] * by_key[..., keys]
            if smooth_q:
                products = products + grouped_matmul(means[:, :, rows], smooth[:, :, keys].swapaxes(2, 3))
            logits = np.where(_hidden(band, rows, keys), -np.inf, products * factor)
            state.update(logits, c[:, :, keys], _through_fp4 if format == "nvfp4" else lambda weights: weights)
        out[:, :, rows] = normalised(state.weighted, state.total)
    return out
