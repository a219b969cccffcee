"""Microscaling in small steps, and the mistakes in them.

Shapes: B batch, H heads, L length, D width; codes are given as the numbers that they stand for, one to an element.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from conformance.pitfalls.quantisation import spacing_of
from oracle import METHODS
from oracle.microscaling import MICROSCALING

__all__ = ["FP4", "MX", "NVFP4", "Microscaled", "ToBlocks", "swapped"]

MX = "OCP Microscaling Formats 1.0, section 6.3"
NVFP4 = "NVIDIA 2025, appendix C, arXiv:2509.25149"
FP4 = "format in ('mxfp4', 'nvfp4')"


class Microscaled(Steps):
    """What `quantize_microscaling` and `dequantize_microscaling` share."""

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.name_of_format = METHODS["quantize_microscaling"].given({"format": arguments.get("format")})["format"]
        self.form = MICROSCALING[self.name_of_format]
        self.zero_scale = arguments.get("zero_scale", "smallest")
        self.shape: tuple[int, ...] = (0, 0, 0, 0)

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name."""
        tensor_scale = self.arguments.get("tensor_scale") is not None or None
        dims = dict(zip("bhld", self.shape, strict=True))
        return {**dims, "format": self.name_of_format, "size": self.form.size, "tensor_scale": tensor_scale}

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return 0 not in self.shape and super().applies()

    def differ(self, wrong: tuple[Array, ...], right: tuple[Array, ...]) -> bool:
        """Whether any number is another."""
        return not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(wrong, right, strict=True))

    def spread(self, scales: Array) -> Array:
        """The scale of every element."""
        return np.repeat(scales, self.form.size, axis=-1)[..., : self.shape[-1]]


def swapped(x: Array) -> Array:
    """Each two neighbours of the last axis exchanged."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)[..., ::-1].reshape(x.shape)


class ToBlocks(Microscaled):
    """`quantize_microscaling`, as the specification means it."""

    methods = ("quantize_microscaling",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.x = arguments["x"]
        self.shape = self.x.shape

    def magnitude(self) -> Array:
        """What scales are computed from."""
        return np.abs(self.x)

    def largest(self) -> Array:
        """The largest magnitude of each block, (B, H, L, blocks)."""
        magnitude, size = self.magnitude(), self.form.size
        starts = range(0, self.shape[-1], size)
        return np.stack([magnitude[..., start : start + size].max(axis=-1) for start in starts], axis=-1)

    def below(self) -> int:
        """How far the exponent of a scale lies below that of the largest magnitude."""
        return int(np.frexp(self.form.element.largest)[1]) - 1

    def exponent(self, largest: Array) -> Array:
        """floor(log2) of the largest magnitudes."""
        return np.frexp(largest)[1] - 1

    def power(self, largest: Array) -> Array:
        """The e8m0 scales."""
        exponent = np.clip(self.exponent(largest) - self.below(), -127, 127)
        zero = 2.0**-127 if self.zero_scale == "smallest" else 1.0
        return np.where(largest > 0, np.exp2(exponent.astype(np.float64)), zero)

    def tensor_scale(self, largest: Array) -> Array:
        """The scale of the tensor of NVFP4, (1,)."""
        whole = largest.max()
        return np.array([whole / self.dtype.type(6 * 448) if whole > 0 else 1], self.dtype)

    def small(self, largest: Array, tensor_scale: Array) -> Array:
        """The e4m3 scales."""
        return self.form.scale.nearest(largest / self.dtype.type(6) / tensor_scale)

    def rounded(self, x: Array) -> Array:
        """The nearest elements."""
        return self.form.element.nearest(x)

    def quotient(self, factors: Array) -> Array:
        """What is rounded."""
        return np.where(factors == 0, 0, self.x / np.where(factors == 0, 1, factors))

    def placed(self, codes: Array) -> Array:
        """Elements in the order in which they are stored."""
        return codes

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        largest = self.largest()
        if self.form.scale.mantissa:
            tensor_scale = self.tensor_scale(largest)
            scales = self.small(largest, tensor_scale)
            factors = scales * tensor_scale
        else:
            scales, tensor_scale = self.power(largest), np.ones(1, self.dtype)
            factors = scales.astype(np.float64)
        return self.placed(self.rounded(self.quotient(self.spread(factors)))), scales, tensor_scale


class ElementsTruncated(ToBlocks):
    name = "elements-truncated"
    explanation = "Elements are cut off instead of rounded to the nearest."
    citation = MX

    def rounded(self, x: Array) -> Array:
        kept = np.clip(x, -self.form.element.largest, self.form.element.largest)
        spacing = spacing_of(kept, self.form.element)
        return np.trunc(kept / spacing) * spacing


class HalfAway(ToBlocks):
    name = "half-away-from-zero"
    explanation = "Elements halfway between two numbers are rounded away from zero instead of to the even one."
    citation = MX
    needs = "format != 'nvfp4'"
    occasional = True

    def rounded(self, x: Array) -> Array:
        kept = np.clip(x, -self.form.element.largest, self.form.element.largest)
        spacing = spacing_of(kept, self.form.element)
        return np.copysign(np.minimum(np.floor(np.abs(kept) / spacing + 0.5) * spacing, self.form.element.largest), x)


class ScaleUp(ToBlocks):
    name = "e8m0-rounded-up"
    explanation = "The exponent of the scale is rounded up, so that nothing saturates and one bit of range is lost."
    citation = "OCP Microscaling Formats 1.0, section 6.3, takes the floor"
    needs = "format != 'nvfp4'"

    def exponent(self, largest: Array) -> Array:
        mantissa, exponent = np.frexp(largest)
        return np.where(mantissa > 0.5, exponent, exponent - 1)


class ScaleNearest(ToBlocks):
    name = "e8m0-rounded-to-nearest"
    explanation = "The exponent of the scale is the nearest integer to log2 instead of the one below."
    citation = "OCP Microscaling Formats 1.0, section 6.3, takes the floor"
    needs = "format != 'nvfp4'"

    def exponent(self, largest: Array) -> Array:
        return np.rint(np.log2(np.where(largest > 0, largest, 1))).astype(np.int64)


class ScaleOfRange(ToBlocks):
    name = "e8m0-from-largest-element"
    explanation = "The scale is the power of two at or above max / largest element, not that of the exponents."
    citation = "OCP Microscaling Formats 1.0, section 6.3"
    needs = "format != 'nvfp4'"

    def exponent(self, largest: Array) -> Array:
        ratio = np.where(largest > 0, largest, 1) / self.form.element.largest
        return np.ceil(np.log2(ratio)).astype(np.int64) + self.below()


class ExponentOfElementForgotten(ToBlocks):
    name = "emax-forgotten"
    explanation = "The scale is the power of two of the largest magnitude itself: elements stay at or below 2."
    citation = MX
    needs = "format != 'nvfp4'"

    def below(self) -> int:
        return 0


class LargestIsPowerOnly(ToBlocks):
    name = "emax-too-large"
    explanation = "The exponent of the largest element is taken to be one more, and large elements saturate."
    citation = MX
    needs = "format != 'nvfp4'"

    def below(self) -> int:
        return super().below() + 1


class Signed(ToBlocks):
    name = "largest-value-for-largest-magnitude"
    explanation = "The scale comes from the largest value of a block, so large negative ones saturate."
    citation = MX

    def magnitude(self) -> Array:
        return np.maximum(self.x, 0)


class NeighbourScale(ToBlocks):
    name = "scale-of-next-block"
    explanation = "Elements are divided by the scale of the next block."
    citation = MX
    needs = "d > size"

    def spread(self, scales: Array) -> Array:
        return super().spread(np.concatenate([scales[..., 1:], scales[..., -1:]], axis=-1))


class RaggedScale(ToBlocks):
    name = "ragged-block-with-scale-before"
    explanation = "The last block, which is shorter, is divided by the scale of the one before it."
    citation = MX
    needs = "d > size and d % size != 0"

    def spread(self, scales: Array) -> Array:
        return super().spread(np.concatenate([scales[..., :-1], scales[..., -2:-1]], axis=-1))


class NibblesSwapped(ToBlocks):
    name = "nibbles-swapped"
    explanation = "Of two elements in a byte the first is in the high nibble."
    citation = MX
    needs = FP4

    def placed(self, codes: Array) -> Array:
        return swapped(codes)


class HalvesPacked(ToBlocks):
    name = "halves-packed-together"
    explanation = "A byte holds an element of the first half of a row and one of the second, not two neighbours."
    citation = MX
    needs = f"{FP4} and d > 2"

    def placed(self, codes: Array) -> Array:
        half = codes.shape[-1] // 2
        return np.stack([codes[..., :half], codes[..., half:]], axis=-1).reshape(codes.shape)


class SubnormalsLost(ToBlocks):
    name = "subnormal-elements-flushed"
    explanation = "Elements below the smallest normal number become zero: 1/2 of e2m1."
    citation = MX

    def rounded(self, x: Array) -> Array:
        numbers = super().rounded(x)
        return np.where(np.abs(numbers) < self.form.element.smallest_normal, 0, numbers)


class TensorScaleForgotten(ToBlocks):
    name = "tensor-scale-one"
    explanation = "The scale of the tensor is always 1, so scales of blocks saturate or vanish."
    citation = NVFP4
    needs = "format == 'nvfp4'"

    def tensor_scale(self, largest: Array) -> Array:
        return np.ones(1, self.dtype)


class TensorScaleOfElements(ToBlocks):
    name = "tensor-scale-without-448"
    explanation = "The scale of the tensor maps the largest magnitude to 6 instead of 6 * 448."
    citation = NVFP4
    needs = "format == 'nvfp4'"

    def tensor_scale(self, largest: Array) -> Array:
        return super().tensor_scale(largest) * self.dtype.type(448 if largest.max() > 0 else 1)


class ScaleNotRounded(ToBlocks):
    name = "divided-by-unrounded-scale"
    explanation = "Elements are divided by the scale as it was before it was rounded to e4m3."
    citation = NVFP4
    needs = "format == 'nvfp4'"

    def quotient(self, factors: Array) -> Array:
        exact = self.spread(self.largest() / self.dtype.type(6))
        return np.where(exact == 0, 0, self.x / np.where(exact == 0, 1, exact))


class ScaleTruncated(ToBlocks):
    name = "e4m3-scale-truncated"
    explanation = "Scales are cut off to e4m3, so that large elements saturate."
    citation = NVFP4
    needs = "format == 'nvfp4'"

    def small(self, largest: Array, tensor_scale: Array) -> Array:
        exact = largest / self.dtype.type(6) / tensor_scale
        spacing = spacing_of(exact, self.form.scale)
        return np.minimum(np.trunc(exact / spacing) * spacing, self.form.scale.largest)


class ZeroDivided(ToBlocks):
    name = "zero-scale-divided-by"
    explanation = "A block whose scale is 0 becomes NaN, which FP4 has not: any number."
    citation = NVFP4
    needs = "format == 'nvfp4'"
    occasional = True

    def quotient(self, factors: Array) -> Array:
        return np.where(factors == 0, self.form.element.largest, super().quotient(factors))
