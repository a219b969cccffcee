"""Dequantisation with a scale in small steps, and the mistakes in them.

Shapes: B batch, H heads, L length, D width; scales have as many axes, those that share one with size 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.quantisation import BLOCKS, FLOAT8, INT8, BlocksOfEqualLength, Quantisation, RaggedBlockAsBefore
from oracle.codes import CODE_FORMATS

__all__ = ["Dequantize"]


class Dequantize(Quantisation):
    """`dequantize`, as the specification means it."""

    methods = ("dequantize",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.codes = arguments["codes"]
        self.shape = self.codes.shape

    def differ(self, wrong: tuple[Array, ...], right: tuple[Array, ...]) -> bool:
        """Whether some number is off by more than a hundredth of itself."""
        return bool((np.abs(wrong[0] - right[0]) > np.abs(right[0]) / 100).any())

    def bits(self) -> Array:
        """The bit patterns, which the arguments hold as the numbers that they stand for."""
        return self.form.encode(self.codes)

    def numbers(self) -> Array:
        """What the codes stand for."""
        return self.codes

    def factors(self) -> Array:
        """What they are multiplied by."""
        return self.spread(self.arguments["scales"])

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return ((self.numbers() * self.factors()).astype(self.dtype),)


class Divided(Dequantize):
    name = "divided-by-scale"
    explanation = "Codes are divided by the scale instead of multiplied by it."
    citation = INT8

    def factors(self) -> Array:
        return 1 / super().factors()


class ScaleForgotten(Dequantize):
    name = "scale-forgotten"
    explanation = "Codes are returned as the numbers that they stand for, without their scale."
    citation = INT8

    def factors(self) -> Array:
        return np.ones_like(super().factors())


class ScaleTwice(Dequantize):
    name = "scale-twice"
    explanation = "Codes are multiplied by their scale twice."
    citation = INT8

    def factors(self) -> Array:
        return super().factors() ** 2


class BytesUnsigned(Dequantize):
    name = "codes-read-without-sign"
    explanation = "Codes of int8 are read as uint8: negative ones are 256 too large."
    citation = INT8
    needs = "format == 'int8'"

    def numbers(self) -> Array:
        return np.where(self.codes < 0, self.codes + 256, self.codes)


class OtherFloat8(Dequantize):
    name = "read-as-other-float8"
    explanation = "Bit patterns of e4m3fn are read as e5m2, or the other way round."
    citation = FLOAT8
    needs = "format != 'int8'"

    def numbers(self) -> Array:
        return CODE_FORMATS["float8_e5m2" if self.form.name == "float8_e4m3fn" else "float8_e4m3fn"].decode(self.bits())


class BiasOfFnuz(Dequantize):
    name = "exponent-bias-one-more"
    explanation = "Bit patterns are read with an exponent bias that is larger by one, as the fnuz formats have: everything is halved."
    citation = "ml_dtypes: float8_e4m3fnuz, float8_e5m2fnuz"
    needs = "format != 'int8'"

    def numbers(self) -> Array:
        return self.codes / 2


class SubnormalsReadAsZero(Dequantize):
    name = "subnormal-codes-read-as-zero"
    explanation = "Codes below the smallest normal number of float8 are taken for zero."
    citation = FLOAT8
    needs = "format != 'int8'"
    occasional = True

    def numbers(self) -> Array:
        return np.where(np.abs(self.codes) < self.form.smallest_normal, 0, self.codes)


class RaggedScaleBefore(RaggedBlockAsBefore, Dequantize):
    name = "ragged-block-with-scale-before"


class EqualParts(BlocksOfEqualLength, Dequantize):
    name = "blocks-of-equal-length"


class NextBlock(Dequantize):
    name = "scale-of-next-block"
    explanation = "The last token of a block gets the scale of the next one."
    citation = BLOCKS
    needs = "granularity == 'block' and l > block_size > 1"

    def block_of(self, tokens: Array) -> Array:
        return np.minimum((tokens + 1) // self.block_size, self.arguments["scales"].shape[2] - 1)


class BlocksInterleaved(Dequantize):
    name = "scales-interleaved"
    explanation = "Token i gets scale i mod the number of scales, as when they are tiled instead of repeated."
    citation = BLOCKS
    needs = "granularity == 'block' and l > block_size > 1"

    def block_of(self, tokens: Array) -> Array:
        return tokens % self.arguments["scales"].shape[2]


class FirstHeadScales(Dequantize):
    name = "scales-of-first-head"
    explanation = "All heads are multiplied by the scales of the first."
    citation = INT8
    needs = "granularity != 'tensor' and h > 1"

    def factors(self) -> Array:
        return super().factors()[:, :1]


class FirstSequenceScales(Dequantize):
    name = "scales-of-first-sequence"
    explanation = "All sequences are multiplied by the scales of the first."
    citation = INT8
    needs = "granularity != 'tensor' and b > 1"

    def factors(self) -> Array:
        return super().factors()[:1]


class ProductInHalf(Dequantize):
    name = "product-rounded-to-float16"
    explanation = "Products are rounded to float16, which loses small scales altogether."
    citation = FLOAT8
    needs = "dtype not in ('float16', 'bfloat16')"

    def outputs(self) -> tuple[Array, ...]:
        return (super().outputs()[0].astype(np.float16).astype(self.dtype),)


class ScaleStored(Dequantize):
    name = "scale-rounded-to-bfloat16"
    explanation = "Scales are rounded to bfloat16 before they are used."
    citation = FLOAT8
    needs = "dtype not in ('float16', 'bfloat16')"

    def factors(self) -> Array:
        pattern = np.ascontiguousarray(super().factors(), dtype=np.float32).view(np.uint32)
        return (pattern + np.uint32(0x8000) & np.uint32(0xFFFF0000)).view(np.float32).astype(self.dtype)
