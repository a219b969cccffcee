"""Rotary position embeddings in PyTorch: with rotate_half, and as products of complex numbers.

Shapes: x (B, H, L, D), positions (B or 1, L) -> (B, H, L, D). Angles are formed in float32 (in float64 for float64).
"""

from __future__ import annotations

import torch
from torch import Tensor

from conformance import register
from implementations.caches import check_positions, pairs_of
from implementations.torch.logits import working_dtype

__all__ = ["rotary_complex", "rotary_half"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _angles(positions: Tensor, half: int, base: float, dtype: torch.dtype) -> Tensor:
    """(B | 1, 1, L, half)."""
    exponents = torch.arange(0, 2 * half, 2, dtype=dtype, device=positions.device) / max(2 * half, 1)
    return positions[:, None, :, None].to(dtype) * (1.0 / base**exponents)


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


@register("rotary_embedding", backend="torch", name="torch.rotary_half", dtypes=DTYPES, description="x * cos + rotate_half(x) * sin")
def rotary_half(
    x: Tensor, positions: Tensor, *, base: float = 10000.0, interleaved: bool = False, rotary_width: int | None = None
) -> Tensor:  # fmt: skip
    """As GPT-NeoX and Llama write it; interleaved pairs are moved apart first and back at the end."""
    check_positions(positions.flatten().tolist())
    half, dtype = pairs_of(x.shape[3], rotary_width), working_dtype(x)
    turned, rest = x[..., : 2 * half].to(dtype), x[..., 2 * half :]
    if interleaved:
        turned = torch.cat([turned[..., 0::2], turned[..., 1::2]], dim=-1)
    angle = _angles(positions, half, base, dtype).repeat(1, 1, 1, 2)
    turned = turned * angle.cos() + _rotate_half(turned) * angle.sin()
    if interleaved:
        turned = torch.stack(turned.chunk(2, dim=-1), dim=-1).flatten(-2)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


@register(
    "rotary_embedding", backend="torch", name="torch.rotary_complex", dtypes=DTYPES, description="complex numbers times polar(1, angle)"
)
def rotary_complex(
    x: Tensor, positions: Tensor, *, base: float = 10000.0, interleaved: bool = False, rotary_width: int | None = None
) -> Tensor:  # fmt: skip
    """As Llama's own code writes it, for both orders of the columns."""
    check_positions(positions.flatten().tolist())
    half, dtype = pairs_of(x.shape[3], rotary_width), working_dtype(x)
    turned, rest = x[..., : 2 * half].to(dtype), x[..., 2 * half :]
    pairs = (turned[..., 0::2], turned[..., 1::2]) if interleaved else (turned[..., :half], turned[..., half:])
    angle = _angles(positions, half, base, dtype)
    product = torch.complex(*(part.contiguous() for part in pairs)) * torch.polar(torch.ones_like(angle), angle)
    parts = [product.real, product.imag]
    joined = torch.stack(parts, dim=-1).flatten(-2) if interleaved else torch.cat(parts, dim=-1)
    return torch.cat([joined.to(x.dtype), rest], dim=-1)
