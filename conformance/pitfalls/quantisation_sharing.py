"""Mistakes of quantisation in which numbers share a scale: blocks, heads, sequences and tensors."""

from __future__ import annotations

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.quantisation import BLOCKS, INT8, BlocksOfEqualLength, Quantize, RaggedBlockAsBefore


class RaggedScaleBefore(RaggedBlockAsBefore, Quantize):
    name = "ragged-block-with-scale-before"


class EqualParts(BlocksOfEqualLength, Quantize):
    name = "blocks-of-equal-length"


class FirstTokenOfBlock(Quantize):
    name = "scale-of-first-token"
    explanation = "The scale of a block is that of its first token."
    citation = BLOCKS
    needs = "granularity == 'block' and block_size > 1 and l > 1"

    def amax_over(self, magnitude: Array, axes: tuple[int, ...]) -> Array:
        return magnitude[:, :, :1].max(axis=axes, keepdims=True)


class HeadsShareScale(Quantize):
    name = "heads-share-scale"
    explanation = "Scales are computed over all heads of a sequence together."
    citation = INT8
    needs = "granularity != 'tensor' and h > 1"

    def magnitude(self) -> Array:
        return np.broadcast_to(super().magnitude().max(axis=1, keepdims=True), self.shape)


class SequencesShareScale(Quantize):
    name = "sequences-share-scale"
    explanation = "Scales are computed over all sequences of the batch together."
    citation = INT8
    needs = "granularity != 'tensor' and b > 1"

    def magnitude(self) -> Array:
        return np.broadcast_to(super().magnitude().max(axis=0, keepdims=True), self.shape)


class FirstHeadForTensor(Quantize):
    name = "tensor-scale-of-first-head"
    explanation = "The scale of the tensor is that of the first head of the first sequence."
    citation = INT8
    needs = "granularity == 'tensor' and b * h > 1"

    def amax_over(self, magnitude: Array, axes: tuple[int, ...]) -> Array:
        return super().amax_over(magnitude[:1, :1], axes)


class TensorForAll(Quantize):
    name = "one-scale-for-the-tensor"
    explanation = "One scale serves the whole tensor, whatever was to have its own."
    citation = INT8
    needs = "granularity != 'tensor' and b * h * l * d > 1"

    def magnitude(self) -> Array:
        magnitude = super().magnitude()
        return np.full_like(magnitude, magnitude.max())
