"""Microscaling in NumPy: elements by counting thresholds, powers of two by bits of the exponent.

Shapes: x (B, H, L, D) -> codes (B, H, L, D), FP4 packed (B, H, L, D / 2), and scales (B, H, L, ceil(D / block)).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from conformance import register
from implementations.numpy.logits import working_dtype
from implementations.numpy.quantisation import float8_bits, to_odd

__all__ = ["dequantize", "fp4_numbers", "nvfp4", "quantize"]

Array = Any  # an ndarray, of a dtype of ml_dtypes perhaps

DTYPES = ("float32", "float64", "float16", "bfloat16")
CODED = ("float32", "float16", "bfloat16")  # whose numbers come back as float32: no argument tells of float64

# Of each format its block, and how far the exponent of its scale lies below that of the largest element.
BLOCKS = {"mxfp4": (32, 2), "mxfp8_e4m3": (32, 8), "mxfp8_e5m2": (32, 15), "nvfp4": (16, 0)}
FLOAT8 = {"mxfp8_e4m3": "float8_e4m3fn", "mxfp8_e5m2": "float8_e5m2"}
NUMBERS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
HALFWAY = (NUMBERS[1:] + NUMBERS[:-1]) / 2


def fp4_bits(x: Array) -> Array:
    """Codes of the nearest e2m1 numbers: how many of the numbers halfway between two it has passed.

    A number exactly halfway counts as passed where the code above is even.
    """
    magnitude = np.abs(x)[..., None]
    code = np.where(np.arange(7) % 2, magnitude >= HALFWAY, magnitude > HALFWAY).sum(axis=-1)
    return (code + 8 * np.signbit(x)).astype(np.uint8)


def fp4_numbers(codes: Array) -> Array:
    """The numbers of codes of e2m1, float64."""
    return np.where(codes & 8, -NUMBERS[codes & 7], NUMBERS[codes & 7])


def blocks_of(x: Array, size: int) -> Array:
    """Rows cut into blocks, (..., blocks, size), the last filled with zeros."""
    count = -(-x.shape[-1] // size)
    padded = np.zeros((*x.shape[:-1], count * size), x.dtype)
    padded[..., : x.shape[-1]] = x
    return padded.reshape(*x.shape[:-1], count, size)


def joined(blocks: Array, width: int) -> Array:
    """Undo `blocks_of`."""
    return blocks.reshape(*blocks.shape[:-2], blocks.shape[-2] * blocks.shape[-1])[..., :width]


def e4m3(x: Array) -> Array:
    """The nearest e4m3 numbers of numbers that are not negative, in the dtype of ``x``."""
    return float8_bits(to_odd(x), "float8_e4m3fn").view(ml_dtypes.float8_e4m3fn).astype(x.dtype)


def nvfp4(x: Array) -> Array:
    """Rows (..., D) after they have been NVFP4 in blocks of 16, without a scale of the tensor."""
    blocks = blocks_of(x, 16)
    scales = e4m3(np.abs(blocks).max(axis=-1, keepdims=True, initial=0) / x.dtype.type(6))
    codes = fp4_bits(blocks / np.where(scales == 0, x.dtype.type(np.inf), scales))
    return joined(fp4_numbers(codes).astype(x.dtype) * scales, x.shape[-1])


@register(
    "quantize_microscaling", backend="numpy", name="numpy.quantize_microscaling", dtypes=DTYPES, description="thresholds and exponent bits"
)
def quantize(x: Array, *, format: str = "mxfp4") -> tuple[Array, Array, Array]:
    """All blocks at once."""
    size, lower = BLOCKS[format]
    blocks = blocks_of(x.astype(working_dtype(x)), size)
    largest = np.abs(blocks).max(axis=-1, initial=0)
    if format == "nvfp4":
        whole = largest.max(initial=0)
        tensor_scale = np.array([whole / largest.dtype.type(6 * 448) if whole > 0 else 1], largest.dtype)
        numbers = e4m3(largest / largest.dtype.type(6) / tensor_scale)
        scales, factors = numbers.astype(ml_dtypes.float8_e4m3fn), numbers * tensor_scale
    else:
        tensor_scale = np.ones(1, largest.dtype)
        power = np.clip(np.frexp(largest)[1] - 1 - lower, -127, 127)
        power = np.where(largest == 0, -127, power)
        scales, factors = (power + 127).astype(np.uint8), np.ldexp(largest.dtype.type(1), power)
    quotients = joined(blocks / np.where(factors == 0, largest.dtype.type(np.inf), factors)[..., None], x.shape[-1])
    if format in FLOAT8:
        return float8_bits(to_odd(quotients), FLOAT8[format]), scales, tensor_scale
    codes = fp4_bits(quotients)
    return codes[..., 0::2] | codes[..., 1::2] << 4, scales, tensor_scale


@register(
    "dequantize_microscaling", backend="numpy", name="numpy.dequantize_microscaling", dtypes=CODED, description="a table of all bytes"
)
def dequantize(codes: Array, scales: Array, *, tensor_scale: Array | None = None, format: str = "mxfp4") -> Array:
    """Of FP4, both numbers of a byte are looked up at once."""
    size, _ = BLOCKS[format]
    dtype = np.dtype(np.float32) if tensor_scale is None else tensor_scale.dtype
    if format in FLOAT8:
        numbers = codes.astype(dtype)
    else:
        every = np.arange(256)
        pairs = np.stack([fp4_numbers(every & 15), fp4_numbers(every >> 4)], axis=-1).astype(dtype)
        numbers = pairs[codes].reshape(*codes.shape[:-1], 2 * codes.shape[-1])
    factors = np.repeat(scales.astype(dtype), size, axis=-1)[..., : numbers.shape[-1]]
    return numbers * factors if tensor_scale is None else numbers * factors * tensor_scale
