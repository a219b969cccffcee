"""Mistakes that only one form of attention on quantised operands has: of values and rotations in float8, of smoothing and FP4 in Sage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.low_precision import E2M1, E4M3, FA3, SAGE, SAGE3, Float8, Sage, fp4
from conformance.pitfalls.quantisation import spacing_of
from oracle.codes import CODE_FORMATS, CodeFormat

LONG_KEYS = "s > key_block"


class ValueScaleForgotten(Float8):
    name = "value-scale-forgotten"
    explanation = "Results are not multiplied by the scale of the values."
    citation = FA3

    def factors(self, scales: Array, role: str) -> Array:
        return np.ones_like(scales) if role == "v" else scales


class ValueScaleOfKeys(Float8):
    name = "value-scale-of-keys"
    explanation = "Values are multiplied by the scale of the keys."
    citation = FA3

    def factors(self, scales: Array, role: str) -> Array:
        return self.scales(self.rotated(self.k, "k"), self.key_block, "k") if role == "v" else scales


class ValueScaleOfFirstBlock(Float8):
    name = "value-scale-of-first-block"
    explanation = "All values are multiplied by the scale of the first block."
    citation = FA3
    needs = LONG_KEYS

    def factors(self, scales: Array, role: str) -> Array:
        return np.broadcast_to(scales[:, :, :1], scales.shape) if role == "v" else scales


class ValueScaleOfLastBlock(Float8):
    name = "value-scale-after-the-loop"
    explanation = "The accumulated result is multiplied by the scale of the last block of values once, after the loop."
    citation = FA3
    needs = LONG_KEYS

    def factors(self, scales: Array, role: str) -> Array:
        return np.broadcast_to(scales[:, :, -1:], scales.shape) if role == "v" else scales


class ValuesTruncated(Float8):
    name = "values-truncated"
    explanation = "Values are cut off to float8 instead of rounded."
    citation = FA3

    def through_codes(self, x: Array, size: int, role: str) -> Array:
        scales = self.scales(x, size, role)
        form = CODE_FORMATS[self.form]
        spacing = spacing_of(x / scales, form)
        return np.trunc(x / scales / spacing) * spacing * scales if role == "v" else super().through_codes(x, size, role)


class RotationNotNormalised(Float8):
    name = "hadamard-not-orthonormal"
    explanation = "The Hadamard matrix is not divided by sqrt(D), so the logits are D times as large."
    citation = FA3
    needs = "signs and d > 1"

    def norm(self) -> float:
        return 1.0


class RotationOverWidth(Float8):
    name = "hadamard-over-width"
    explanation = "The Hadamard matrix is divided by D instead of sqrt(D), so the logits are D times too small."
    citation = FA3
    needs = "signs and d > 1"

    def norm(self) -> float:
        return 1 / self.width


class KeysNotRotated(Float8):
    name = "keys-not-rotated"
    explanation = "Queries are rotated, keys are not."
    citation = FA3
    needs = "signs and d > 1"

    def rotated(self, x: Array, role: str) -> Array:
        return x if role == "k" else super().rotated(x, role)


class SignsOfQueriesOnly(Float8):
    name = "signs-of-queries-only"
    explanation = "Queries are multiplied by the signs, keys by the Hadamard matrix alone."
    citation = FA3
    needs = "signs"
    occasional = True

    def signs(self, signs: Array, role: str) -> Array:
        return signs if role == "q" else np.ones_like(signs)


class RotationIgnored(Float8):
    name = "rotation-ignored"
    explanation = "Nothing is rotated: right but for the codes, which were to be others."
    citation = FA3
    needs = "signs and d > 1"

    def rotated(self, x: Array, role: str) -> Array:
        return x


class MeanNotSubtracted(Sage):
    name = "smoothing-forgotten"
    explanation = "The mean of the keys is not taken away, so outliers decide their scale."
    citation = SAGE
    needs = "smooth_k and s > 1"

    def smooth_keys(self) -> Array:
        return self.k


class AlwaysSmooth(Sage):
    name = "always-smoothed"
    explanation = "The mean of the keys is taken away although it was to stay."
    citation = SAGE
    needs = "not smooth_k"

    def smooth_keys(self) -> Array:
        return self.k - self.key_mean()


class MeanOverWidth(Sage):
    name = "mean-over-width"
    explanation = "From each key the mean of its own elements is taken away, which changes the logits."
    citation = SAGE
    needs = "smooth_k"

    def key_mean(self) -> Array:
        return self.k.mean(axis=3, keepdims=True)


class MeanOverHeads(Sage):
    name = "mean-over-heads"
    explanation = "The mean of the keys is taken over all heads together: right but for the codes."
    citation = SAGE
    needs = "smooth_k and g > 1"

    def key_mean(self) -> Array:
        return self.k.mean(axis=(1, 2), keepdims=True)


class MeanOverBatch(Sage):
    name = "mean-over-sequences"
    explanation = "The mean of the keys is taken over all sequences together: right but for the codes."
    citation = SAGE
    needs = "smooth_k and b > 1"

    def key_mean(self) -> Array:
        return self.k.mean(axis=(0, 2), keepdims=True)


class MeanOfBlocks(Sage):
    name = "mean-of-each-block"
    explanation = "From each block of keys its own mean is taken away, which shifts the logits of one block against another."
    citation = SAGE
    needs = f"smooth_k and {LONG_KEYS}"

    def key_mean(self) -> Array:
        blocks = [self.k[:, :, start : start + self.key_block] for start in range(0, self.keys, self.key_block)]
        return np.concatenate([np.broadcast_to(block.mean(axis=2, keepdims=True), block.shape) for block in blocks], axis=2)


class MeanOverPadding(Sage):
    name = "mean-over-padded-length"
    explanation = "The sum of the keys is divided by their number rounded up to whole blocks: right but for the codes."
    citation = SAGE
    needs = "smooth_k and s % key_block != 0"

    def key_mean(self) -> Array:
        return super().key_mean() * self.dtype.type(self.keys / (-(-self.keys // self.key_block) * self.key_block))


class MeanOfQueriesToo(Sage):
    name = "mean-of-keys-from-queries"
    explanation = "The mean of the keys is taken away from the queries as well, which nothing cancels."
    citation = SAGE
    needs = "smooth_k and h == g"

    def smooth_queries(self) -> Array:
        return super().smooth_queries() - self.key_mean()


class MeanOfValues(Sage):
    name = "values-smoothed"
    explanation = "The mean of the values is taken away and not given back."
    citation = SAGE
    needs = "s > 1"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.v = self.v - self.v.mean(axis=2, keepdims=True)


class CorrectionForgotten(Sage):
    name = "query-mean-not-given-back"
    explanation = "The products of the queries' means with the keys are not added to the logits."
    citation = SAGE3
    needs = "smooth_q"

    def added(self) -> Array:
        return self.dtype.type(0)


class CorrectionOfAllQueries(Sage):
    name = "query-mean-of-all-blocks"
    explanation = "One mean of all queries serves every block: right but for the codes."
    citation = SAGE3
    needs = "smooth_q and l > query_block"

    def query_means(self) -> Array:
        return np.broadcast_to(self.q.mean(axis=2, keepdims=True), self.q.shape)


class CorrectionWithPlainKeys(Sage):
    name = "query-mean-twice"
    explanation = "The products of the queries' means with the keys are added although the means were not taken away."
    citation = SAGE3
    needs = "smooth_q"

    def smooth_queries(self) -> Array:
        return self.q


class RangeOfTwosComplement(Sage):
    name = "range-of-128"
    explanation = "The largest magnitude of a block becomes 128, which saturates at 127."
    citation = SAGE
    needs = "format == 'int8'"

    def largest(self, form: CodeFormat) -> float:
        return 128.0


class LevelForgotten(Sage):
    name = "weight-scale-forgotten"
    explanation = "Weights are cut into blocks as they are, between 0 and 1, where e4m3 scales are coarse and end at 1/512."
    citation = SAGE3
    needs = "format == 'nvfp4'"

    def level(self, tile: Array, row: Array) -> Array:
        return np.ones_like(tile[..., :1])


class LevelNotGivenBack(Sage):
    name = "weight-scale-of-largest-element-only"
    explanation = "Weights are scaled by 448 in one step and by 6 * 448 in the other."
    citation = SAGE3
    needs = "format == 'nvfp4'"

    def weights(self, logits: Array) -> Array:
        return super().weights(logits) * 6


class LevelOfRow(Sage):
    name = "weight-scale-of-whole-row"
    explanation = "The first level of the scale is that of the whole row, not of the tile."
    citation = SAGE3
    needs = f"format == 'nvfp4' and {LONG_KEYS}"

    def level(self, tile: Array, row: Array) -> Array:
        return np.broadcast_to(row.max(axis=-1, keepdims=True) / self.dtype.type(6 * 448), tile[..., :1].shape)


class ScalesNotRounded(Sage):
    name = "block-scales-not-rounded"
    explanation = "The scales of blocks of FP4 stay float32 instead of e4m3."
    citation = SAGE3
    needs = "format == 'nvfp4'"

    def in_fp4(self, x: Array, role: str) -> Array:
        return fp4(x, scales_rounded=False)


class BlocksOfMx(Sage):
    name = "blocks-of-32"
    explanation = "Blocks of FP4 have 32 elements, as in MXFP4, instead of 16."
    citation = SAGE3
    needs = "format == 'nvfp4' and (d > 16 or s > 16)"

    def in_fp4(self, x: Array, role: str) -> Array:
        return fp4(x, 32)


class ValuesAlongWidth(Sage):
    name = "value-blocks-along-width"
    explanation = "Blocks of values lie along their width instead of along the tokens, over which the product sums."
    citation = SAGE3
    needs = "format == 'nvfp4' and s > 1 and e > 1"

    def values_in_fp4(self) -> Array:
        return self.in_fp4(self.v, "v")


class ValuesNotQuantised(Sage):
    name = "values-not-in-fp4"
    explanation = "Values stay what they are where they were to be FP4."
    citation = SAGE3
    needs = "format == 'nvfp4'"

    def values_in_fp4(self) -> Array:
        return self.v


class WeightsNotQuantised(Sage):
    name = "weights-not-in-fp4"
    explanation = "Weights stay what they are where they were to be FP4."
    citation = SAGE3
    needs = "format == 'nvfp4' and s > 1"

    def in_fp4(self, x: Array, role: str) -> Array:
        return x if role == "p" else super().in_fp4(x, role)


class DenominatorOfRounded(Sage):
    name = "denominator-of-rounded-weights"
    explanation = "The weights are added up after they have been FP4 instead of before."
    citation = SAGE3
    needs = "format == 'nvfp4' and s > 1"

    def denominator(self, logits: Array) -> Array:
        return self.weights(logits).sum(axis=-1, keepdims=True)


class NibblesSwapped(Sage):
    name = "keys-nibbles-swapped"
    explanation = "Of the two FP4 codes of keys in a byte the second is taken for the first."
    citation = SAGE3
    needs = "format == 'nvfp4' and d % 2 == 0"

    def in_fp4(self, x: Array, role: str) -> Array:
        out = super().in_fp4(x, role)
        if role != "k":
            return out
        return out.reshape(*out.shape[:-1], out.shape[-1] // 2, 2)[..., ::-1].reshape(out.shape)


class ElementsTruncated(Sage):
    name = "fp4-truncated"
    explanation = "Elements of FP4 are cut off instead of rounded to the nearest."
    citation = SAGE3
    needs = "format == 'nvfp4'"

    def in_fp4(self, x: Array, role: str) -> Array:
        width = x.shape[-1]
        padded = np.concatenate([x, np.zeros((*x.shape[:-1], -width % 16), x.dtype)], axis=-1)
        blocks = padded.reshape(*x.shape[:-1], padded.shape[-1] // 16, 16)
        scales = E4M3.nearest(np.abs(blocks).max(axis=-1, keepdims=True, initial=0) / x.dtype.type(6))
        ratio = np.clip(np.where(scales > 0, blocks / np.where(scales > 0, scales, 1), 0), -6, 6)
        spacing = spacing_of(ratio, E2M1)
        return (np.trunc(ratio / spacing) * spacing * scales).reshape(padded.shape)[..., :width].astype(x.dtype)
