"""Mistakes of Chebyshev attention in its weights and their normalisation; those in the polynomial itself stand in `polynomial`."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.polynomial import CLENSHAW, SOFTMAX, TREFETHEN, Chebyshev


class NotNormalised(Chebyshev):
    name = "weights-not-normalised"
    explanation = "The weighed values are not divided by the sum of the weights."
    citation = SOFTMAX

    def total(self, weights: Array) -> Array:
        return np.ones_like(weights[..., :1])


class DividedByLength(Chebyshev):
    name = "weights-divided-by-length"
    explanation = "The weighed values are divided by the number of keys."
    citation = SOFTMAX
    needs = "s > 0"

    def total(self, weights: Array) -> Array:
        return np.full_like(weights[..., :1], self.keys)


class DividedByExponentials(Chebyshev):
    name = "weights-over-sum-of-exponentials"
    explanation = "The denominator is the sum of the exponentials themselves, not of the polynomials."
    citation = SOFTMAX

    def total(self, weights: Array) -> Array:
        return np.exp(self.clipped(self.logits())).sum(axis=-1, keepdims=True)


class DividedByMagnitudes(Chebyshev):
    name = "denominator-of-magnitudes"
    explanation = "The denominator adds up magnitudes of the weights, which differ from them where the polynomial is negative."
    citation = TREFETHEN
    occasional = True

    def total(self, weights: Array) -> Array:
        return np.abs(weights).sum(axis=-1, keepdims=True)


class KeyTailDropped(Chebyshev):
    name = "key-tail-dropped"
    explanation = "Only whole tiles of keys are read: those of a last tile that is not full are left out."
    citation = "Dao et al. 2022, algorithm 1, arXiv:2205.14135"
    needs = "s > tile and s % tile != 0"
    variants = (16, 32, 64, 128)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "tile": self.tile()}

    def tile(self) -> int:
        return self.setting.tunables.get("block_k") or self.keys

    def weights(self) -> Array:
        return super().weights() * (np.arange(self.keys) < self.keys // self.tile() * self.tile())

    def applies(self) -> bool:
        return self.keys > 0 and super().applies()


class Rectified(Chebyshev):
    name = "negative-weights-cut-off"
    explanation = "Where the polynomial is negative, the weight is taken as 0."
    citation = TREFETHEN
    occasional = True

    def weights(self) -> Array:
        return np.maximum(super().weights(), 0)


class ShiftedByMaximum(Chebyshev):
    name = "maximum-subtracted"
    explanation = "The maximum of each row is subtracted before the logits are clipped, as for a softmax; here it does not cancel."
    citation = "Milakov and Gimelshein 2018, section 2, arXiv:1805.02867"
    needs = "degree > 0"

    def logits(self) -> Array:
        logits = super().logits()
        return logits - logits.max(axis=-1, keepdims=True, initial=-np.inf)


class MaskedOutside(Chebyshev):
    name = "logits-outside-masked"
    explanation = "Keys whose logits lie outside the domain get no weight, instead of that of its nearer end."
    citation = TREFETHEN
    occasional = True

    def weights(self) -> Array:
        logits = self.logits()
        return np.where(logits == self.clipped(logits), super().weights(), 0)


class Softmax(Chebyshev):
    name = "exponential-kept"
    explanation = "The weights are exponentials of the clipped logits: the polynomial is not used."
    citation = SOFTMAX

    def weights(self) -> Array:
        return np.exp(self.clipped(self.logits()))


class ScaleForgotten(Chebyshev):
    name = "scale-forgotten"
    explanation = "The logits are not scaled."
    citation = SOFTMAX
    needs = "degree > 0 and factor not in (0, 1)"

    def factor(self) -> float:
        return 1.0


class ScaleByWidth(Chebyshev):
    name = "scale-without-square-root"
    explanation = "The logits are divided by D instead of sqrt(D)."
    citation = SOFTMAX
    needs = "degree > 0 and scale is None and d > 1"

    def factor(self) -> float:
        return 1 / self.width


class ScaleIgnored(Chebyshev):
    name = "scale-option-ignored"
    explanation = "The option `scale` has no effect."
    citation = SOFTMAX
    needs = "degree > 0 and scale is not None"

    def factor(self) -> float:
        return 1 / sqrt(max(self.width, 1))


class PolynomialInStorage(Chebyshev):
    name = "polynomial-in-storage-dtype"
    explanation = "Every step of the recurrence is rounded to the 16 bits of the inputs."
    citation = CLENSHAW
    needs = "degree > 9 and half"

    def summed(self, coefficients: np.ndarray, t: Array) -> Array:
        after, latest = np.zeros_like(t), np.zeros_like(t)
        for coefficient in coefficients[:0:-1].astype(self.dtype):
            after, latest = latest, self.stored(coefficient + 2 * t * latest - after)
        return self.stored(self.dtype.type(coefficients[0]) + t * latest - after)


class ComputedInSingle(Chebyshev):
    name = "computed-in-float32"
    explanation = "Arguments in float64 are computed with in float32 and the result is widened again."
    citation = "NVIDIA/torch-harmonics#204"
    needs = "dtype == 'float64'"

    def weights(self) -> Array:
        return super().weights().astype(np.float32).astype(self.dtype)
