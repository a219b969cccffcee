"""Microscaling in PyTorch: FP4 by arithmetic on float32, scales by its own e4m3 dtype and by powers of two.

Shapes: x (B, H, L, D) -> codes (B, H, L, D), FP4 packed (B, H, L, D / 2), and scales (B, H, L, ceil(D / block)).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from conformance import register
from implementations.torch.logits import working_dtype
from implementations.torch.quantisation import cast

__all__ = ["blocks_of", "dequantize", "fp4", "nvfp4", "quantize"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
CODED = ("float32", "float16", "bfloat16")  # whose numbers come back as float32: no argument tells of float64
SIZES = {"mxfp4": 32, "mxfp8_e4m3": 32, "mxfp8_e5m2": 32, "nvfp4": 16}
LARGEST_EXPONENT = {"mxfp4": 2, "mxfp8_e4m3": 8, "mxfp8_e5m2": 15}
FLOAT8 = {"mxfp8_e4m3": "float8_e4m3fn", "mxfp8_e5m2": "float8_e5m2"}


def fp4(x: Tensor) -> Tensor:
    """The nearest e2m1 numbers, in the dtype of ``x``: multiples of 1/2 below 2, of 1 below 4, of 2 up to 6."""
    magnitude = x.abs().clamp(max=6.0)
    step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0)).to(x.dtype)
    return torch.copysign((magnitude / step).round() * step, x)


def fp4_codes(numbers: Tensor) -> Tensor:
    """Bit patterns of e2m1 numbers, uint8: sign, two bits of exponent, one of mantissa."""
    twice = (numbers.abs() * 2).to(torch.int32)  # 0, 1, 2, 3, 4, 6, 8, 12
    table = torch.tensor([0, 1, 2, 3, 4, 0, 5, 0, 6, 0, 0, 0, 7], dtype=torch.uint8, device=numbers.device)
    return table[twice.long()] + 8 * torch.signbit(numbers).to(torch.uint8)


def blocks_of(x: Tensor, size: int) -> Tensor:
    """Rows cut into blocks, (..., blocks, size), the last filled with zeros."""
    padded = pad(x, (0, -x.shape[-1] % size))
    return padded.reshape(*x.shape[:-1], padded.shape[-1] // size, size)


def _largest(blocks: Tensor) -> Tensor:
    return blocks.abs().amax(dim=-1, keepdim=True) if blocks.numel() else blocks.new_zeros(*blocks.shape[:-1], 1)


def nvfp4(x: Tensor) -> Tensor:
    """Rows (..., D) after they have been NVFP4 in blocks of 16, without a scale of the tensor."""
    if not x.numel():
        return x
    blocks = blocks_of(x, 16)
    scales = cast(_largest(blocks) / 6, "float8_e4m3fn").to(x.dtype)
    quotients = torch.where(scales > 0, blocks / scales, torch.zeros_like(blocks))
    return (fp4(quotients) * scales).flatten(-2)[..., : x.shape[-1]]


@register(
    "quantize_microscaling", backend="torch", name="torch.quantize_microscaling", dtypes=DTYPES, description="frexp and ldexp, e4m3 casts"
)
def quantize(x: Tensor, *, format: str = "mxfp4") -> tuple[Tensor, Tensor, Tensor]:
    """MX scales as e8m0 tensors, FP4 packed two to a byte."""
    size, wide = SIZES[format], x.to(working_dtype(x))
    count = -(-x.shape[3] // size)
    blocks = pad(wide, (0, count * size - x.shape[3])).reshape(*x.shape[:3], count, size)
    largest, tensor_scale = _largest(blocks), wide.new_ones(1)
    if format == "nvfp4":
        whole = largest.amax() if largest.numel() else wide.new_zeros(())
        tensor_scale = torch.where(whole > 0, whole / (6 * 448), torch.ones_like(whole)).reshape(1)
        scales = cast(largest / (6 * tensor_scale), "float8_e4m3fn")
        factors = scales.to(wide.dtype) * tensor_scale
    else:
        power = torch.frexp(largest).exponent - 1 - LARGEST_EXPONENT[format]
        power = torch.where(largest == 0, -127, power.clamp(-127, 127))
        scales = (power + 127).to(torch.uint8).view(torch.float8_e8m0fnu)
        factors = torch.ldexp(torch.ones_like(largest), power)
    quotients = torch.where(factors > 0, blocks / factors, torch.zeros_like(blocks)).reshape(*x.shape[:3], count * size)[..., : x.shape[3]]
    if format in FLOAT8:
        return cast(quotients, FLOAT8[format]), scales[..., 0], tensor_scale
    codes = fp4_codes(fp4(quotients))
    return codes[..., 0::2] | codes[..., 1::2] << 4, scales[..., 0], tensor_scale


@register("dequantize_microscaling", backend="torch", name="torch.dequantize_microscaling", dtypes=CODED, description="nibbles by shifts")
def dequantize(codes: Tensor, scales: Tensor, *, tensor_scale: Tensor | None = None, format: str = "mxfp4") -> Tensor:
    """An e2m1 number from its bits: (1 + m / 2) 2^(e - 1), or m / 2 where e is 0."""
    dtype = torch.float32 if tensor_scale is None else tensor_scale.dtype
    if format in FLOAT8:
        numbers = codes.to(dtype)
    else:
        nibbles = torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2).to(torch.int32)
        exponent, mantissa = nibbles >> 1 & 3, (nibbles & 1).to(dtype)
        magnitude = torch.where(exponent > 0, torch.ldexp(1 + mantissa / 2, exponent - 1), mantissa / 2)
        numbers = torch.where(nibbles > 7, -magnitude, magnitude)
    factors = scales.to(dtype) if tensor_scale is None else scales.to(dtype) * tensor_scale
    return numbers * factors.repeat_interleave(SIZES[format], dim=-1)[..., : numbers.shape[-1]]
