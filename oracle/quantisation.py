"""Quantisation to 8 bits with a scale: for all of a tensor, for each token, for each channel or for each block of tokens.

A scale is the largest magnitude of what shares it over the largest number of the format; a code is the nearest number to a value
over its scale. Symmetric, without a zero point. Dettmers et al. 2022, arXiv:2208.07339, eq. 1 (int8 by rows and columns); Micikevicius
et al. 2022, arXiv:2209.05433, section 3 (float8); blocks of tokens: Shah et al. 2024, arXiv:2407.08608, section 3.3. Every function runs
on float64 arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, H heads, L length, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.codes import CODE_FORMATS, CodeFormat
from oracle.options import Kind
from oracle.readings.features import constant, values_of
from oracle.readings.quantised import divided, largest_magnitude, largest_number, meaningless, quantised, special

__all__ = ["dequantize", "quantize", "repeated", "scales_of"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

FORMATS = ("int8", "float8_e4m3fn", "float8_e5m2")
GRANULARITIES = ("token", "tensor", "channel", "block")
OPTIONS: dict[str, Kind] = {"format": FORMATS, "granularity": GRANULARITIES, "block_size": "size"}

# Scales have as many axes as what they scale, those that share one with size 1.
SHARED = {
    "p": "1 + (b - 1) * (granularity != 'tensor')",
    "m": "1 + (h - 1) * (granularity != 'tensor')",
    "n": "1 + (l - 1) * (granularity == 'token') + (-(-l // block_size) - 1) * (granularity == 'block')",
    "w": "1 + (d - 1) * (granularity == 'channel')",
}


def _coding(options: Mapping[str, Any]) -> dict[str, str]:
    """The format of the codes, by name of the array."""
    return {"codes": options["format"]}


def _there_and_back(arguments: Mapping[str, Any]) -> tuple[str, np.ndarray, np.ndarray]:
    """What is left of numbers that have been codes."""
    given = quantize.given(arguments)
    codes, scales = quantize.spec(**arguments)
    return "x", codes * repeated(scales, given["granularity"], given["block_size"], codes.shape[2]), arguments["x"]


def blocks_of(x: Array, block_size: int) -> list[Array]:
    """Blocks of tokens, (B, H, block_size, D) each; the last may be shorter."""
    return [x[:, :, start : start + block_size] for start in range(0, x.shape[2], block_size)]


def largest_of(x: Array, granularity: str, block_size: int) -> Array:
    """The largest magnitude of what shares a scale, (B, H, L, D) -> as in `SHARED`."""
    if granularity == "block":
        parts = [largest_magnitude(block, (2, 3)) for block in blocks_of(x, block_size)]
        return np.concatenate(parts, axis=2) if parts else x[:, :, :, :1]
    axes = {"tensor": (0, 1, 2, 3), "token": (3,), "channel": (2,)}
    return largest_magnitude(x, axes[granularity])


def scales_of(x: Array, form: CodeFormat, granularity: str, block_size: int, eps: float = 0.0) -> tuple[Array, np.ndarray]:
    """Scales, 1 where all that share one are zeros; and where that is so."""
    largest = largest_of(x, granularity, block_size)
    if eps:
        largest = np.maximum(largest, constant(eps, largest))
    nothing = values_of(largest) == 0
    return np.where(nothing, 1.0, largest / form.largest), nothing


def repeated(scales: Array, granularity: str, block_size: int, length: int) -> Array:
    """Scales that broadcast to what they scale: those of blocks once for every token."""
    return np.repeat(scales, block_size, axis=2)[:, :, :length] if granularity == "block" else scales


@method(
    source="Dettmers et al. 2022, eq. 1, arXiv:2208.07339; Micikevicius et al. 2022, section 3, arXiv:2209.05433",
    shapes="x: b h l d, scales?: statistic p m n w -> codes: code b h l d, scales: statistic p m n w",
    options={**OPTIONS, "eps": "nonnegative"},
    conventions={"zero_scale": ("any", "one", "zero"), "overflow": ("saturate", "special")},
    derived=SHARED,
    domains={"scales": "scale"},
    tunables=("block_rows",),
    coding=_coding,
    approximation=_there_and_back,
)
def quantize(
    x: Array,
    *,
    scales: Array | None = None,
    format: str = "int8",
    granularity: str = "token",
    block_size: int = 64,
    eps: float = 0.0,
    zero_scale: str = "any",
    overflow: str = "saturate",
) -> tuple[Array, Array]:
    """Symmetric quantisation to 8 bits: codes round(x / scale), saturated, with scale = max |x| / largest number of the format.

    Args:
        x: (B, H, L, D).
        scales: to use instead of those computed from x, > 0, as a cache of fixed scales does; see Returns for their shape.
        format: int8 (from -127 to 127), float8_e4m3fn (448) or float8_e5m2 (57344).
        granularity: what shares a scale: a token, the tensor, a channel of a head, or a block of tokens of a head.
        block_size: tokens in a block; the last may have fewer.
        eps: the largest magnitude that a scale is computed from is at least this.
        zero_scale: what the scale of nothing but zeros is; the codes are zeros, so any finite number will do.
        overflow: ``special``: what given scales leave too large becomes NaN in e4m3fn and infinite in e5m2. int8 saturates always.

    Returns:
        codes (B, H, L, D), of two equally near ones the even; and scales, float32: (B, H, L, 1) for tokens, (1, 1, 1, 1) for the
        tensor, (B, H, 1, D) for channels, (B, H, ceil(L / block_size), 1) for blocks.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range, or a scale is.
    """
    form = CODE_FORMATS[format]
    nothing: Any = np.zeros((), dtype=bool)
    if scales is None:
        scales, nothing = scales_of(x, form, granularity, block_size, eps)
    quotient = divided(x, repeated(scales, granularity, block_size, x.shape[2]))
    codes = quantised(quotient, form)
    if overflow == "special":
        codes = special(quotient, codes, form)
    if not nothing.any():
        return codes, scales
    if zero_scale == "any":
        return codes, meaningless(scales, nothing, largest_number(scales))
    return codes, np.where(nothing, 0.0 if zero_scale == "zero" else 1.0, scales)


@method(
    source="Dettmers et al. 2022, eq. 1, arXiv:2208.07339; Micikevicius et al. 2022, section 3, arXiv:2209.05433",
    shapes="codes: code b h l d, scales: statistic p m n w -> statistic b h l d",
    options=OPTIONS,
    derived=SHARED,
    domains={"scales": "scale"},
    tunables=("block_rows",),
    coding=_coding,
)
def dequantize(
    codes: Array,
    scales: Array,
    *,
    format: str = "int8",
    granularity: str = "token",
    block_size: int = 64,
) -> Array:
    """The numbers that codes and scales stand for: the product of the two.

    Args:
        codes: (B, H, L, D), numbers of the format.
        scales: (B, H, L, 1) for tokens, (1, 1, 1, 1) for the tensor, (B, H, 1, D) for channels, (B, H, ceil(L / block_size), 1) for
            blocks of tokens.
        format: int8, float8_e4m3fn or float8_e5m2.
        granularity: what shares a scale.
        block_size: tokens in a block; the last may have fewer.

    Returns:
        (B, H, L, D).

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range, or a scale is.
    """
    return codes * repeated(scales, granularity, block_size, codes.shape[2])
