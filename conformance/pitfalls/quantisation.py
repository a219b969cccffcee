"""Quantisation with a scale in small steps, and the mistakes in them.

Shapes: B batch, H heads, L length, D width; scales have as many axes, those that share one with size 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle import METHODS
from oracle.codes import CODE_FORMATS, CodeFormat

__all__ = ["BLOCKS", "FLOAT8", "INT8", "BlocksOfEqualLength", "Quantisation", "Quantize", "RaggedBlockAsBefore", "spacing_of"]

FLOAT8 = "Micikevicius et al. 2022, section 3, arXiv:2209.05433"
BLOCKS = "Shah et al. 2024, section 3.3, arXiv:2407.08608"
INT8 = "Dettmers et al. 2022, eq. 1, arXiv:2208.07339"
AXES = {"tensor": (0, 1, 2, 3), "token": (3,), "channel": (2,)}


def spacing_of(x: Array, form: CodeFormat) -> Array:
    """How far apart the numbers of a format are around some others."""
    if not form.exponent:
        return np.ones_like(x)
    kept = np.clip(np.nan_to_num(np.abs(x)), form.smallest_normal, form.largest)
    return np.exp2(np.frexp(kept)[1] - 1 - form.mantissa).astype(x.dtype)


class Quantisation(Steps):
    """What `quantize` and `dequantize` share: the format, and which scale a token has."""

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        options = METHODS["quantize"].given({name: arguments.get(name) for name in METHODS["quantize"].options})
        self.form = CODE_FORMATS[options["format"]]
        self.granularity, self.block_size = options["granularity"], options["block_size"]
        self.given, self.eps = arguments.get("scales"), options["eps"]
        self.shape: tuple[int, ...] = (0, 0, 0, 0)

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name."""
        dims = dict(zip("bhld", self.shape, strict=True))
        scales = None if self.given is None else True
        return {
            **dims, "format": self.form.name, "granularity": self.granularity, "block_size": self.block_size, "scales": scales,
            "eps": self.eps, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return 0 not in self.shape and super().applies()

    def differ(self, wrong: tuple[Array, ...], right: tuple[Array, ...]) -> bool:
        """Whether any code is another, or a scale is off by more than a hundredth of itself."""
        codes, scales = (wrong[0], right[0]), (wrong[1], right[1])
        return not (np.array_equal(*codes) and bool((np.abs(scales[0] - scales[1]) <= np.abs(scales[1]) / 100).all()))

    def block_of(self, tokens: Array) -> Array:
        """The block that a token is in."""
        return tokens // self.block_size

    def spread(self, scales: Array) -> Array:
        """The scale of every element, as far as it differs."""
        return scales[:, :, self.block_of(np.arange(self.shape[2]))] if self.granularity == "block" else scales


class RaggedBlockAsBefore(Quantisation):
    """The last block, which is shorter, uses the scale of the one before it."""

    explanation = "The last block, which is shorter, uses the scale of the one before it."
    citation = BLOCKS
    needs = "granularity == 'block' and l > block_size and l % block_size != 0"

    def block_of(self, tokens: Array) -> Array:
        """The block that a token is in."""
        return np.minimum(tokens // self.block_size, self.shape[2] // self.block_size - 1)


class BlocksOfEqualLength(Quantisation):
    """The tokens are cut into equal parts."""

    explanation = "The tokens are cut into equal parts, as many as there are scales, instead of into blocks of the given size."
    citation = BLOCKS
    needs = "granularity == 'block' and l > block_size > 1 and l % block_size != 0"

    def block_of(self, tokens: Array) -> Array:
        """The block that a token is in."""
        count = -(-self.shape[2] // self.block_size)
        return tokens // -(-self.shape[2] // count)


class Quantize(Quantisation):
    """`quantize`, as the specification means it."""

    methods = ("quantize",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.x = arguments["x"]
        self.shape = self.x.shape

    def largest(self) -> float:
        """The number that the largest magnitude is to become."""
        return self.form.largest

    def magnitude(self) -> Array:
        """What scales are computed from."""
        return np.abs(self.x)

    def amax_over(self, magnitude: Array, axes: tuple[int, ...]) -> Array:
        """The largest of what shares a scale."""
        return magnitude.max(axis=axes, keepdims=True)

    def amax(self) -> Array:
        """The largest magnitude of what shares a scale."""
        magnitude = self.magnitude()
        if self.granularity != "block":
            return self.amax_over(magnitude, AXES[self.granularity])
        starts = range(0, self.shape[2], self.block_size)
        blocks = [self.amax_over(magnitude[:, :, start : start + self.block_size], (2, 3)) for start in starts]
        return np.concatenate(blocks, axis=2)

    def nonzero(self, scales: Array) -> Array:
        """Scales to divide by."""
        return np.where(scales == 0, self.dtype.type(1), scales)

    def bounded(self, amax: Array) -> Array:
        """Largest magnitudes, bounded from below."""
        return np.maximum(amax, self.dtype.type(self.eps))

    def scales(self) -> Array:
        """The scales that are divided by."""
        return self.nonzero(self.bounded(self.amax()) / self.dtype.type(self.largest())) if self.given is None else self.given

    def quotient(self, scales: Array) -> Array:
        """What is rounded."""
        return self.x / self.spread(scales)

    def rounded(self, x: Array) -> Array:
        """The nearest numbers of the format, without bounds."""
        spacing = spacing_of(x, self.form)
        return np.rint(x / spacing) * spacing

    def saturated(self, x: Array) -> Array:
        """Numbers that the format has."""
        return np.clip(x, -self.form.largest, self.form.largest)

    def returned(self, scales: Array) -> Array:
        """The scales that are returned."""
        return scales

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        scales = self.scales()
        return self.saturated(self.rounded(self.quotient(scales))), self.returned(scales)


class Truncated(Quantize):
    name = "truncated-towards-zero"
    explanation = "Quotients are cut off, not rounded to the nearest number: what a cast to an integer does."
    citation = FLOAT8

    def rounded(self, x: Array) -> Array:
        spacing = spacing_of(x, self.form)
        return np.trunc(x / spacing) * spacing


class Floored(Quantize):
    name = "rounded-down"
    explanation = "Quotients are rounded down, negative ones away from zero."
    citation = FLOAT8

    def rounded(self, x: Array) -> Array:
        spacing = spacing_of(x, self.form)
        return np.floor(x / spacing) * spacing


class HalfAwayFromZero(Quantize):
    name = "half-away-from-zero"
    explanation = "What lies halfway between two codes is rounded away from zero instead of to the even one."
    citation = "SageAttention's Triton quantiser adds 0.5 with the sign and truncates; IEEE 754 rounds to even"
    needs = "scales"
    occasional = True

    def rounded(self, x: Array) -> Array:
        spacing = spacing_of(x, self.form)
        return np.copysign(np.floor(np.abs(x) / spacing + 0.5) * spacing, x)


class HalfUp(Quantize):
    name = "half-rounded-up"
    explanation = "What lies halfway between two codes is always rounded up: floor(x + 1/2)."
    citation = FLOAT8
    needs = "scales"
    occasional = True

    def rounded(self, x: Array) -> Array:
        spacing = spacing_of(x, self.form)
        return np.floor(x / spacing + 0.5) * spacing


class AnotherRange(Quantize):
    name = "range-of-another-format"
    explanation = "The scale maps to 128 for int8, to 240 for e4m3fn (e4m3fnuz ends there), or to 448 for e5m2."
    citation = INT8
    needs = "not scales"

    def largest(self) -> float:
        return {"int8": 128.0, "float8_e4m3fn": 240.0, "float8_e5m2": 448.0}[self.form.name]


class AnotherFormat(Quantize):
    name = "other-float8-format"
    explanation = "Codes are those of the other float8 format: three bits of mantissa for two, or two for three."
    citation = FLOAT8
    needs = "format != 'int8'"

    def rounded(self, x: Array) -> Array:
        other = CODE_FORMATS["float8_e5m2" if self.form.name == "float8_e4m3fn" else "float8_e4m3fn"]
        spacing = spacing_of(x, self.form) * 2.0 ** (self.form.mantissa - other.mantissa)
        return np.rint(x / spacing) * spacing


class SubnormalsFlushed(Quantize):
    name = "subnormal-codes-flushed"
    explanation = "What is below the smallest normal number of float8 becomes zero."
    citation = FLOAT8
    needs = "format != 'int8'"
    occasional = True

    def rounded(self, x: Array) -> Array:
        return np.where(np.abs(x) < self.form.smallest_normal, 0, super().rounded(x))


class NotSaturated(Quantize):
    name = "not-saturated"
    explanation = "What is too large wraps around in int8 and becomes NaN in e4m3fn and infinite in e5m2."
    citation = "ml_dtypes and CUDA's non-saturating casts; Micikevicius et al. 2022, table 2, arXiv:2209.05433"
    needs = "scales"
    occasional = True

    def saturated(self, x: Array) -> Array:
        if self.form.name == "int8":
            return (np.nan_to_num(x) + 128) % 256 - 128
        beyond = np.nan if self.form.name == "float8_e4m3fn" else np.copysign(np.inf, x)
        return np.where(np.abs(x) > self.form.largest, beyond, x)


class LowestOfTwosComplement(Quantize):
    name = "saturates-at-minus-128"
    explanation = "Negative values saturate at -128, which has no positive counterpart."
    citation = INT8
    needs = "format == 'int8' and scales"
    occasional = True

    def saturated(self, x: Array) -> Array:
        return np.clip(x, -128, 127)


class ScalesIgnored(Quantize):
    name = "given-scales-ignored"
    explanation = "The scales that are passed are not used; others are computed."
    citation = FLOAT8
    needs = "scales"

    def scales(self) -> Array:
        self.given = None
        return super().scales()


class ZeroDivided(Quantize):
    name = "zero-scale-divided-by"
    explanation = "Where all that share a scale are zeros, 0 / 0 makes NaN of them."
    citation = "SageAttention's Triton quantiser divides by the scale as it comes"
    needs = "not scales"
    occasional = True

    def nonzero(self, scales: Array) -> Array:
        return scales


class Signed(Quantize):
    name = "largest-value-for-largest-magnitude"
    explanation = "The scale comes from the largest value, so large negative ones saturate."
    citation = INT8
    needs = "not scales"

    def magnitude(self) -> Array:
        return self.x

    def nonzero(self, scales: Array) -> Array:
        return super().nonzero(np.maximum(scales, 0))


class MeanMagnitude(Quantize):
    name = "scale-from-mean-magnitude"
    explanation = "The scale is twice the mean magnitude over the largest number, and what exceeds it saturates."
    citation = "Esser et al. 2020 (LSQ), section 2.1, arXiv:1902.08153, starts from such a scale"
    needs = "not scales"

    def amax_over(self, magnitude: Array, axes: tuple[int, ...]) -> Array:
        return 2 * magnitude.mean(axis=axes, keepdims=True)


class PowerOfTwo(Quantize):
    name = "scale-rounded-to-power-of-two"
    explanation = "Scales are rounded up to a power of two, as e8m0 scales are."
    citation = "OCP Microscaling Formats 1.0, section 5.4.1"
    needs = "not scales"

    def scales(self) -> Array:
        return np.exp2(np.ceil(np.log2(super().scales()))).astype(self.dtype)


class ScaleInverted(Quantize):
    name = "inverse-scale-returned"
    explanation = "The factor that values were multiplied by is returned, not the one that codes are to be multiplied by."
    citation = FLOAT8

    def returned(self, scales: Array) -> Array:
        return 1 / scales


class ScaleInHalf(Quantize):
    name = "scale-stored-in-float16"
    explanation = "Scales are returned rounded to float16, but values were divided by what they were before."
    citation = FLOAT8

    def returned(self, scales: Array) -> Array:
        return scales.astype(np.float16).astype(self.dtype)


class QuotientInHalf(Quantize):
    name = "quotient-rounded-to-bfloat16"
    explanation = "Quotients are computed in bfloat16 and rounded once more to the code."
    citation = FLOAT8

    def quotient(self, scales: Array) -> Array:
        pattern = super().quotient(scales).astype(np.float32).view(np.uint32)
        kept = pattern + np.uint32(0x7FFF) + (pattern >> 16 & np.uint32(1)) & np.uint32(0xFFFF0000)
        return kept.view(np.float32).astype(self.dtype)


class Guarded(Quantize):
    name = "guard-added-to-scale"
    explanation = "1e-5 is added to every scale, so that none is zero: small numbers lose their codes."
    citation = "SageAttention's Triton quantiser adds 1e-7"
    needs = "not scales"

    def scales(self) -> Array:
        return self.amax() / self.dtype.type(self.largest()) + self.dtype.type(1e-5)


class GuardAdded(Quantize):
    name = "eps-added"
    explanation = "eps is added to the largest magnitude instead of bounding it from below."
    citation = FLOAT8
    needs = "not scales and eps > 0"

    def bounded(self, amax: Array) -> Array:
        return amax + self.dtype.type(self.eps)


class GuardOfScale(Quantize):
    name = "eps-bounds-scale"
    explanation = "eps bounds the scale from below, not the largest magnitude."
    citation = FLOAT8
    needs = "not scales and eps > 0"

    def scales(self) -> Array:
        return np.maximum(self.nonzero(self.amax() / self.dtype.type(self.largest())), self.dtype.type(self.eps))


class Multiplied(Quantize):
    name = "multiplied-by-scale"
    explanation = "Values are multiplied by the scale instead of divided by it."
    citation = FLOAT8

    def quotient(self, scales: Array) -> Array:
        return self.x * self.spread(scales)


class HalfDoubleRounded(Quantize):
    name = "value-rounded-to-float16-first"
    explanation = "Values are rounded to float16 before they are divided: two roundings for one."
    citation = FLOAT8
    needs = "dtype not in ('float16', 'bfloat16')"

    def quotient(self, scales: Array) -> Array:
        return self.x.astype(np.float16).astype(self.dtype) / self.spread(scales)
