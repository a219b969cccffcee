"""Quantisation to 8 bits in PyTorch, with its own float8 dtypes, on any device.

Shapes: x (B, H, L, D) -> codes (B, H, L, D) and scales: (B, H, L, 1) for tokens, (1, 1, 1, 1) for the tensor, (B, H, 1, D) for
channels, (B, H, blocks, 1) for blocks of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from conformance import register
from implementations.torch.logits import working_dtype

__all__ = ["CODES", "cast", "dequantize", "quantize", "scales_of"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
CODES = {"int8": torch.int8, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}


def largest(form: str) -> float:
    """The largest number of a format; of int8 the symmetric one."""
    return 127.0 if form == "int8" else torch.finfo(CODES[form]).max


def cast(x: Tensor, form: str) -> Tensor:
    """The nearest codes. Clamped first: a cast of what is too large is NaN on some devices and the largest number on others."""
    kept = x.clamp(-largest(form), largest(form))
    if form == "int8":
        return kept.round().to(torch.int8)
    # From float64 by way of float32 numbers would be rounded twice.
    return (_to_odd(kept) if x.dtype == torch.float64 else kept).to(CODES[form])


def _to_odd(x: Tensor) -> Tensor:
    """Float64 as float32 whose last bit is set where anything was cut off, so that rounding once more rounds as if at once."""
    narrow = x.to(torch.float32)
    toward = torch.where(narrow.double().abs() > x.abs(), torch.nextafter(narrow, torch.zeros_like(narrow)), narrow)
    return torch.where(toward.double() == x, toward, (toward.view(torch.int32) | 1).view(torch.float32))


def scales_of(x: Tensor, form: str, granularity: str, block_size: int, eps: float = 0.0) -> Tensor:
    """Scales, 1 where all that share one are zeros; tokens missing from the last block are padded with zeros."""
    if granularity == "block":
        blocks = -(-x.shape[2] // block_size)
        padded = pad(x, (0, 0, 0, blocks * block_size - x.shape[2])).reshape(*x.shape[:2], blocks, block_size * x.shape[3])
        some = padded.numel() > 0
        amax = torch.linalg.vector_norm(padded, torch.inf, dim=3, keepdim=True) if some else padded.new_zeros(*padded.shape[:3], 1)
    else:
        dims = {"tensor": (0, 1, 2, 3), "token": (3,), "channel": (2,)}[granularity]
        shape = [1 if axis in dims else size for axis, size in enumerate(x.shape)]
        amax = torch.amax(x.abs(), dim=dims, keepdim=True) if x.numel() else x.new_zeros(shape)
    scales = amax.clamp(min=eps) / largest(form)
    return torch.where(scales == 0, torch.ones_like(scales), scales)  # which may underflow where amax is not 0


def spread(scales: Tensor, granularity: str, block_size: int, length: int) -> Tensor:
    """The scale of every token, where blocks of them share one."""
    return scales.repeat_interleave(block_size, dim=2)[:, :, :length] if granularity == "block" else scales


@register("quantize", backend="torch", name="torch.quantize", dtypes=DTYPES, description="casts to torch's float8 dtypes and int8")
def quantize(
    x: Tensor,
    *,
    scales: Tensor | None = None,
    format: str = "int8",
    granularity: str = "token",
    block_size: int = 64,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """By the reciprocal of the scales, as kernels multiply rather than divide; where that overflows, the scale is divided by."""
    wide = x.to(working_dtype(x))
    given = scales_of(wide, format, granularity, block_size, eps) if scales is None else scales.clone()
    own, inverse = spread(given, granularity, block_size, x.shape[2]), spread(1 / given, granularity, block_size, x.shape[2])
    return cast(torch.where(torch.isfinite(inverse), wide * inverse, wide / own), format), given


@register("dequantize", backend="torch", name="torch.dequantize", dtypes=DTYPES, description="codes widened, times their scales")
def dequantize(
    codes: Tensor,
    scales: Tensor,
    *,
    format: str = "int8",
    granularity: str = "token",
    block_size: int = 64,
) -> Tensor:
    """Widening is exact; one product for each number."""
    return codes.to(scales.dtype) * spread(scales, granularity, block_size, codes.shape[2])
