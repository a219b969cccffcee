"""From microscaling blocks to numbers in small steps, and the mistakes in them.

Shapes: B batch, H heads, L length, D width; codes are given as the numbers that they stand for, one to an element.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.microscaling import FP4, MX, NVFP4, Microscaled, swapped

__all__ = ["FromBlocks"]


class FromBlocks(Microscaled):
    """`dequantize_microscaling`, as the specification means it."""

    methods = ("dequantize_microscaling",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.codes, self.scales = arguments["codes"], arguments["scales"]
        self.shape = self.codes.shape

    def numbers(self) -> Array:
        """What the codes stand for."""
        return self.codes

    def block_scales(self) -> Array:
        """What the scales stand for."""
        return self.scales

    def whole(self) -> Array:
        """The scale of the tensor."""
        given = self.arguments.get("tensor_scale")
        return np.ones(1, self.dtype) if given is None else given

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return ((self.numbers() * self.spread(self.block_scales()) * self.whole()).astype(self.dtype),)


class ReadSwapped(FromBlocks):
    name = "nibbles-swapped"
    explanation = "Of two elements in a byte the high nibble is read first."
    citation = MX
    needs = FP4

    def numbers(self) -> Array:
        return swapped(self.codes)


class LowNibblesFirst(FromBlocks):
    name = "all-low-nibbles-first"
    explanation = "All low nibbles of a row are read before all high ones, instead of in turn."
    citation = MX
    needs = f"{FP4} and d > 2"

    def numbers(self) -> Array:
        return np.concatenate([self.codes[..., 0::2], self.codes[..., 1::2]], axis=-1)


class SignLost(FromBlocks):
    name = "sign-of-nibble-lost"
    explanation = "The highest bit of a nibble is masked away."
    citation = MX
    needs = FP4

    def numbers(self) -> Array:
        return np.abs(self.codes)


class ReadAsIntegers(FromBlocks):
    name = "nibbles-read-as-integers"
    explanation = "Nibbles are read as integers from -8 to 7 instead of as e2m1."
    citation = MX
    needs = FP4

    def numbers(self) -> Array:
        bits = self.form.element.encode(self.codes).astype(self.dtype)
        return np.where(bits > 7, bits - 16, bits)


class SubnormalRead(FromBlocks):
    name = "subnormal-elements-read-as-normal"
    explanation = "The implicit leading one is added to subnormal elements too: e2m1 0.5 is read as 0.75, and 0 as 0.5."
    citation = MX

    def numbers(self) -> Array:
        form = self.form.element
        below = np.abs(self.codes) < form.smallest_normal
        normal = np.copysign(form.smallest_normal / 2 * (1 + np.abs(self.codes) / form.smallest_normal), self.codes)
        return np.where(below, normal, self.codes)


class BiasOff(FromBlocks):
    name = "e8m0-bias-128"
    explanation = "The bias of e8m0 is taken for 128: everything is halved."
    citation = MX
    needs = "format != 'nvfp4'"

    def block_scales(self) -> Array:
        return self.scales / 2


class ScaleAsInteger(FromBlocks):
    name = "e8m0-not-exponentiated"
    explanation = "The exponent that an e8m0 byte holds is multiplied by, not the power of two."
    citation = MX
    needs = "format != 'nvfp4'"

    def block_scales(self) -> Array:
        return np.log2(self.scales.astype(np.float64)).astype(self.dtype)


class OtherBlockSize(FromBlocks):
    name = "blocks-of-other-format"
    explanation = "Blocks are taken to have 16 elements for MX formats, 32 for NVFP4."
    citation = MX
    needs = "d > 16"

    def spread(self, scales: Array) -> Array:
        block = np.arange(self.shape[-1]) // (16 if self.form.size == 32 else 32)
        return scales[..., np.minimum(block, scales.shape[-1] - 1)]


class ScalesTiled(FromBlocks):
    name = "scales-interleaved"
    explanation = "Element i gets scale i mod the number of scales, as when they are tiled instead of repeated."
    citation = MX
    needs = "d > size"

    def spread(self, scales: Array) -> Array:
        return scales[..., np.arange(self.shape[-1]) % scales.shape[-1]]


class FirstRowScales(FromBlocks):
    name = "scales-of-first-token"
    explanation = "All tokens of a head are multiplied by the scales of the first."
    citation = MX
    needs = "l > 1"

    def block_scales(self) -> Array:
        return self.scales[:, :, :1]


class RaggedRead(FromBlocks):
    name = "ragged-block-with-scale-before"
    explanation = "The last block, which is shorter, is multiplied by the scale of the one before it."
    citation = MX
    needs = "d > size and d % size != 0"

    def block_scales(self) -> Array:
        return np.concatenate([self.scales[..., :-1], self.scales[..., -2:-1]], axis=-1)


class TensorScaleIgnored(FromBlocks):
    name = "tensor-scale-ignored"
    explanation = "The scale of the tensor is not multiplied by."
    citation = NVFP4
    needs = "tensor_scale"

    def whole(self) -> Array:
        return np.ones(1, self.dtype)


class TensorScaleInverted(FromBlocks):
    name = "tensor-scale-divided-by"
    explanation = "Numbers are divided by the scale of the tensor, as where its inverse is stored."
    citation = NVFP4
    needs = "tensor_scale"

    def whole(self) -> Array:
        return 1 / super().whole()


class ScaleForgotten(FromBlocks):
    name = "scale-of-block-forgotten"
    explanation = "Elements are returned without the scale of their block."
    citation = MX

    def block_scales(self) -> Array:
        return np.ones_like(self.scales)
