"""Quantisation to 8 bits in NumPy, by integer arithmetic on bit patterns.

Shapes: x (B, H, L, D) -> codes (B, H, L, D) and scales: (B, H, L, 1) for tokens, (1, 1, 1, 1) for the tensor, (B, H, 1, D) for
channels, (B, H, blocks, 1) for blocks of tokens.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.logits import working_dtype
from implementations.tiling import tiles

__all__ = ["dequantize", "float8_bits", "quantize", "to_odd"]

Array = Any  # an ndarray, of a dtype of ml_dtypes perhaps

DTYPES = ("float32", "float64", "float16", "bfloat16")
LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
MANTISSA = {"float8_e4m3fn": 3, "float8_e5m2": 2}
BIAS = {"float8_e4m3fn": 7, "float8_e5m2": 15}


def float8_bits(x: Array, form: str) -> Array:
    """Bit patterns of the nearest float8 of float32 numbers, saturated, as uint8 (B, H, L, D).

    Half of a unit in the last place kept, less one, plus the last bit kept, is added to the integer that a float32 is: what then
    carries into the kept bits rounds to nearest even. Numbers below the smallest normal one are counted in its smallest steps instead.
    """
    kept = 23 - MANTISSA[form]
    magnitude = np.minimum(np.abs(x), np.float32(LARGEST[form]))
    pattern = magnitude.view(np.uint32)
    rounded = (pattern + (np.uint32(2 ** (kept - 1) - 1) + (pattern >> kept & 1))) >> kept
    normal = rounded - np.uint32(127 - BIAS[form] << MANTISSA[form])
    steps = np.rint(magnitude * np.float32(2.0 ** (BIAS[form] - 1 + MANTISSA[form]))).astype(np.uint32)
    below = magnitude < np.float32(2.0 ** (1 - BIAS[form]))
    return (np.where(below, steps, normal) | np.signbit(x).astype(np.uint32) << 7).astype(np.uint8)


def _spread(scales: Array, granularity: str, block_size: int, length: int) -> Array:
    """The scale of every token, where blocks of them share one."""
    return scales[:, :, np.arange(length) // block_size] if granularity == "block" else scales


def _largest(x: Array, granularity: str, block_size: int) -> Array:
    """The largest magnitude of what shares a scale: by the largest and the smallest number, not by magnitudes."""
    axes = {"tensor": (0, 1, 2, 3), "token": (3,), "channel": (2,), "block": (3,)}[granularity]
    largest = np.maximum(x.max(axis=axes, keepdims=True, initial=0), -x.min(axis=axes, keepdims=True, initial=0))
    if granularity == "block":
        starts = np.arange(0, x.shape[2], block_size)
        largest = np.maximum.reduceat(largest, starts, axis=2) if starts.size else largest
    return largest


@register(
    "quantize", backend="numpy", name="numpy.quantize", dtypes=DTYPES, tunables={"block_rows": block_sizes},
    description="bit patterns by integer arithmetic, in strips of tokens",
)  # fmt: skip
def quantize(
    x: Array,
    *,
    scales: Array | None = None,
    format: str = "int8",
    granularity: str = "token",
    block_size: int = 64,
    eps: float = 0.0,
    block_rows: int = 64,
) -> tuple[Array, Array]:
    """Codes of one strip of tokens after the other; float8 as bit patterns."""
    wide = x.astype(working_dtype(x))
    if scales is None:
        scales = np.maximum(_largest(wide, granularity, block_size), wide.dtype.type(eps)) / wide.dtype.type(LARGEST[format])
        scales = np.where(scales == 0, wide.dtype.type(1), scales)
    own = _spread(scales, granularity, block_size, x.shape[2])
    codes = np.empty(x.shape, np.int8 if format == "int8" else np.uint8)
    for rows in tiles(slice(0, x.shape[2]), block_rows):
        quotient = wide[:, :, rows] / (own if own.shape[2] == 1 else own[:, :, rows])
        if format == "int8":
            codes[:, :, rows] = np.clip(np.rint(quotient), -127, 127)
        else:
            codes[:, :, rows] = float8_bits(to_odd(quotient), format)
    return codes, scales.copy()


def to_odd(x: Array) -> Array:
    """Float64 as float32 whose last bit is set where anything was cut off, so that rounding once more rounds as if at once."""
    if x.dtype == np.float32:
        return np.ascontiguousarray(x)
    narrow = x.astype(np.float32)
    toward = np.where(np.abs(narrow) > np.abs(x), np.nextafter(narrow, np.float32(0)), narrow)
    return np.where(toward == x, toward, (toward.view(np.uint32) | np.uint32(1)).view(np.float32))


@register("dequantize", backend="numpy", name="numpy.dequantize", dtypes=DTYPES, description="a table of the numbers of all codes")
def dequantize(
    codes: Array,
    scales: Array,
    *,
    format: str = "int8",
    granularity: str = "token",
    block_size: int = 64,
) -> Array:
    """Each code looked up among the 256 numbers of its format."""
    stored = np.arange(256, dtype=np.uint8).view(np.int8 if format == "int8" else getattr(ml_dtypes, format))
    numbers = stored.astype(scales.dtype)[codes.view(np.uint8)]
    return numbers * _spread(scales, granularity, block_size, codes.shape[2])
