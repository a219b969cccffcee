"""Microscaling: short blocks along the last axis, each with a scale of 8 bits.

MX formats: OCP Microscaling Formats 1.0 (2023), section 5 and 6.3; Rouhani et al. 2023, arXiv:2310.10537. NVFP4: NVIDIA 2025,
arXiv:2509.25149, section 3 and appendix C. Every function runs on float64 arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, H heads, L length, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.codes import CODE_FORMATS, CodeFormat
from oracle.options import Kind
from oracle.readings.features import values_of
from oracle.readings.quantised import divided, exponent_of, largest_magnitude, largest_number, meaningless, power_of_two, quantised

__all__ = ["MICROSCALING", "Microscaling", "dequantize_microscaling", "in_blocks", "quantize_microscaling", "spread_blocks"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

E2M1, E8M0 = CODE_FORMATS["float4_e2m1fn"], CODE_FORMATS["float8_e8m0fnu"]
E4M3, E5M2 = CODE_FORMATS["float8_e4m3fn"], CODE_FORMATS["float8_e5m2"]


@dataclass(frozen=True)
class Microscaling:
    """A format of blocks.

    Attributes:
        element: format of the elements.
        scale: format of the scale of a block.
        size: elements in a block.
    """

    element: CodeFormat
    scale: CodeFormat
    size: int


MICROSCALING = {
    "mxfp4": Microscaling(E2M1, E8M0, 32),
    "mxfp8_e4m3": Microscaling(E4M3, E8M0, 32),
    "mxfp8_e5m2": Microscaling(E5M2, E8M0, 32),
    "nvfp4": Microscaling(E2M1, E4M3, 16),
}
OPTIONS: dict[str, Kind] = {"format": tuple(MICROSCALING)}
WHERE = {"format in ('mxfp8_e4m3', 'mxfp8_e5m2') or d % 2 == 0": "two elements of FP4 share a byte"}
BLOCKS = {"n": "-(-d // 32) * (format != 'nvfp4') + -(-d // 16) * (format == 'nvfp4')", "u": "1"}


def _coding(options: Mapping[str, Any]) -> dict[str, str]:
    """The formats of codes and scales, by name of the array."""
    form = MICROSCALING[options["format"]]
    return {"codes": form.element.name, "scales": form.scale.name}


def _there_and_back(arguments: Mapping[str, Any]) -> tuple[str, np.ndarray, np.ndarray]:
    """What is left of numbers that have been blocks."""
    codes, scales, tensor_scale = quantize_microscaling.spec(**arguments)
    size = MICROSCALING[quantize_microscaling.given(arguments)["format"]].size
    return "x", codes * spread_blocks(scales, size, codes.shape[-1]) * tensor_scale, arguments["x"]


def in_blocks(x: Array, size: int) -> Array:
    """The largest magnitude of each block of the last axis, (..., n) -> (..., ceil(n / size))."""
    parts = [largest_magnitude(x[..., start : start + size], (x.ndim - 1,)) for start in range(0, x.shape[-1], size)]
    return np.concatenate(parts, axis=-1) if parts else x


def spread_blocks(scales: Array, size: int, width: int) -> Array:
    """The scale of every element, undoing `in_blocks`."""
    return np.repeat(scales, size, axis=-1)[..., :width]


def over_scales(x: Array, factors: Array, size: int) -> Array:
    """Elements over the factors of their blocks; zeros where a factor is zero."""
    nothing = values_of(factors) == 0
    spread = spread_blocks(np.where(nothing, 1.0, factors), size, x.shape[-1])
    return np.where(spread_blocks(nothing, size, x.shape[-1]), 0.0, divided(x, spread))


def microscaled(x: Array, form: Microscaling) -> tuple[Array, Array]:
    """Codes and scales of blocks without a scale of the tensor, as SageAttention3 has them (Zhang et al. 2025, arXiv:2505.11594, eq. 1)."""
    scales = quantised(in_blocks(x, form.size) / form.element.largest, form.scale)
    return quantised(over_scales(x, scales, form.size), form.element), scales


@method(
    source="OCP Microscaling Formats 1.0, section 6.3; NVFP4: NVIDIA 2025, appendix C, arXiv:2509.25149",
    shapes="x: b h l d -> codes: code b h l d, scales: code b h l n, tensor_scale?: statistic u",
    where=WHERE,
    options=OPTIONS,
    conventions={"zero_scale": ("any", "smallest", "one")},
    derived=BLOCKS,
    coding=_coding,
    approximation=_there_and_back,
)
def quantize_microscaling(x: Array, *, format: str = "mxfp4", zero_scale: str = "any") -> tuple[Array, Array, Array]:
    """Quantisation in blocks of 32 (MX) or 16 (NVFP4) elements of the last axis, the last of which may be shorter.

    MX: scale = 2^(floor(log2(max |x|)) - emax), emax being the exponent of the largest element (2, 8 or 15), codes round(x / scale).
    NVFP4: tensor_scale = max |x| of the tensor / (6 * 448), scale = e4m3(max |x| of the block / (6 * tensor_scale)), codes
    round(x / (scale * tensor_scale)). Rounded to nearest even, saturated.

    Args:
        x: (B, H, L, D).
        format: mxfp4 (e2m1 elements, two to a byte, the first in the low nibble), mxfp8_e4m3, mxfp8_e5m2 or nvfp4.
        zero_scale: what the e8m0 scale of nothing but zeros is: any, the smallest, 2^-127, or 1. That of NVFP4 may be any.

    Returns:
        codes (B, H, L, D), FP4 packed (B, H, L, D / 2); scales (B, H, L, ceil(D / block)) of e8m0 or e4m3; and, of NVFP4,
        tensor_scale (1,), float32, 1 for nothing but zeros; what MX formats return there is 1 or left out.

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown.
    """
    form = MICROSCALING[format]
    largest = in_blocks(x, form.size)
    one = largest_magnitude(x, (0, 1, 2, 3)).reshape(1) * 0 + 1
    if format != "nvfp4":
        scales = power_of_two(largest, int(exponent_of(np.asarray(form.element.largest))), form.scale)
        codes = quantised(over_scales(x, scales, form.size), form.element)
        zeros = values_of(scales) == 0
        scales = np.where(zeros, 1.0 if zero_scale == "one" else 2.0**-form.scale.bias, scales)
        return codes, meaningless(scales, zeros, form.scale.largest) if zero_scale == "any" else scales, one
    whole = largest_magnitude(x, (0, 1, 2, 3)).reshape(1)
    nothing = values_of(whole) == 0
    tensor_scale = np.where(nothing, 1.0, whole / (form.element.largest * form.scale.largest))
    scales = quantised(largest / form.element.largest / tensor_scale, form.scale)
    codes = quantised(over_scales(x, scales * tensor_scale, form.size), form.element)
    scales = meaningless(scales, values_of(largest) == 0, form.scale.largest)
    return codes, scales, meaningless(tensor_scale, nothing, largest_number(tensor_scale))


@method(
    source="OCP Microscaling Formats 1.0, section 6.2; NVFP4: NVIDIA 2025, appendix C, arXiv:2509.25149",
    shapes="codes: code b h l d, scales: code b h l n, tensor_scale?: statistic u -> statistic b h l d",
    where=WHERE,
    options=OPTIONS,
    derived=BLOCKS,
    domains={"tensor_scale": "scale"},
    coding=_coding,
)
def dequantize_microscaling(codes: Array, scales: Array, *, tensor_scale: Array | None = None, format: str = "mxfp4") -> Array:
    """The numbers that blocks stand for: codes times the scale of their block, times that of the tensor where there is one.

    Args:
        codes: (B, H, L, D), numbers of the elements' format; FP4 packed (B, H, L, D / 2), the first of two in the low nibble.
        scales: (B, H, L, ceil(D / block)), of e8m0 or, of NVFP4, of e4m3.
        tensor_scale: (1,), > 0; 1 by default.
        format: mxfp4, mxfp8_e4m3, mxfp8_e5m2 (blocks of 32) or nvfp4 (of 16).

    Returns:
        (B, H, L, D).

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown, or a scale is out of range.
    """
    factors = spread_blocks(scales, MICROSCALING[format].size, codes.shape[-1])
    out = codes * factors
    return out if tensor_scale is None else out * tensor_scale
