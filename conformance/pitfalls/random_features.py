"""Mistakes in the random features of Performers.

What only scales all weights of a query cancels, but for eps: a kernel may leave out a factor that its stabilisers would take out
as well. So a missing 1/sqrt(M) shows only where eps counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.linear import (
    CausalExcludesOwn,
    CausalFlipped,
    CausalIgnored,
    CausalReadsNext,
    DenominatorNotCausal,
    DenominatorOfKeys,
    DenominatorOverHeads,
    DividedByLength,
    Linear,
    NotNormalised,
    NumeratorNotCausal,
    StateNotReset,
    also_in,
)  # fmt: skip

LEMMA = "Choromanski et al. 2021, lemma 1, arXiv:2009.14794"
PRACTICE = "Choromanski et al. 2021, appendix B, arXiv:2009.14794"


class Performer(Linear):
    """Performer attention with stabilisers, whose common factor is put back into eps."""

    methods = ("performer_attention",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.projection = arguments["projection"]
        self.count = self.projection.shape[0]

    def facts(self) -> dict[str, Any]:
        """Those of linear attention, and the number of features."""
        return {**super().facts(), "m": self.count}

    def scaled(self, x: Array) -> Array:
        """Queries or keys over D^(1/4)."""
        return x / self.dtype.type(self.width**0.25)

    def rows(self) -> Array:
        """The projection, (M, D)."""
        return self.projection

    def projected(self, x: Array) -> Array:
        """w.x of what is scaled."""
        return self.scaled(x) @ self.rows().T

    def half_square(self, x: Array) -> Array:
        """What is subtracted from the projections, (B, H, L, 1)."""
        return np.square(self.scaled(x)).sum(axis=-1, keepdims=True) / 2

    def logarithms(self, x: Array) -> Array:
        """Of the features."""
        return self.projected(x) - self.half_square(x)

    def query_stabiliser(self) -> Array:
        """What is subtracted from the logarithms of the queries' features."""
        return self.logarithms(self.q).max(axis=-1, keepdims=True)

    def key_stabiliser(self) -> Array:
        """What is subtracted from those of the keys'."""
        return self.logarithms(self.k).max(axis=(-2, -1), keepdims=True)

    def normalised(self, features: Array) -> Array:
        """The features over sqrt(M)."""
        return features / self.dtype.type(sqrt(self.count))

    def query_features(self) -> Array:
        """Of the queries."""
        return self.normalised(np.exp(self.logarithms(self.q) - self.query_stabiliser()))

    def key_features(self) -> Array:
        """Of the keys."""
        return self.normalised(np.exp(self.logarithms(self.k) - self.key_stabiliser()))

    def guard(self) -> Array:
        """eps under the common factor of the features."""
        return self.dtype.type(self.eps) * np.exp(-(self.query_stabiliser() + self.key_stabiliser())) if self.eps else self.dtype.type(0)

    def divided(self, weighed: Array, total: Array) -> Array:
        """The quotient."""
        return weighed / (total + self.guard())


class Stabilised(Performer):
    """Performer attention whose eps is added to the sum of the stabilised features, as most kernels do, and as is meant too."""

    def guard(self) -> Array:
        """eps as it stands."""
        return self.dtype.type(self.eps)


SHARED = (
    NotNormalised, DividedByLength, DenominatorOfKeys, DenominatorOverHeads, CausalIgnored, CausalExcludesOwn, CausalReadsNext,
    CausalFlipped, DenominatorNotCausal, NumeratorNotCausal, StateNotReset,
)  # fmt: skip
for shared in SHARED:
    also_in(Stabilised)(shared)


class HalfSquareForgotten(Stabilised):
    name = "half-square-forgotten"
    explanation = "The features are exp(w.x) without -|x|^2/2: long keys get too much weight."
    citation = LEMMA

    def half_square(self, x: Array) -> Array:
        return np.zeros((*x.shape[:3], 1), self.dtype)


class SquareNotHalved(Stabilised):
    name = "square-not-halved"
    explanation = "The features are exp(w.x - |x|^2): long keys get too little weight."
    citation = LEMMA

    def half_square(self, x: Array) -> Array:
        return super().half_square(x) * 2


class SquareNotSquared(Stabilised):
    name = "half-norm-for-half-square"
    explanation = "The features are exp(w.x - |x|/2): the norm is not squared."
    citation = LEMMA

    def half_square(self, x: Array) -> Array:
        return np.sqrt(np.square(self.scaled(x)).sum(axis=-1, keepdims=True)) / 2


class SquareOfUnscaled(Stabilised):
    name = "half-square-of-unscaled-input"
    explanation = "-|x|^2/2 is taken of the key before it is divided by D^(1/4)."
    citation = LEMMA
    needs = "d > 1"

    def half_square(self, x: Array) -> Array:
        return np.square(x).sum(axis=-1, keepdims=True) / 2


class SquareAdded(Stabilised):
    name = "half-square-added"
    explanation = "The features are exp(w.x + |x|^2/2), with the wrong sign."
    citation = LEMMA

    def half_square(self, x: Array) -> Array:
        return -super().half_square(x)


class SquareOfMean(Stabilised):
    name = "half-square-is-mean-square"
    explanation = "The mean of the squares is taken for their sum."
    citation = LEMMA
    needs = "d > 1"

    def half_square(self, x: Array) -> Array:
        return super().half_square(x) / self.width


class NotScaled(Stabilised):
    name = "inputs-not-scaled"
    explanation = "Queries and keys are not divided by D^(1/4): exp(q.k) is estimated instead of exp(q.k / sqrt(D))."
    citation = LEMMA
    needs = "d > 1"

    def scaled(self, x: Array) -> Array:
        return x


class ScaledBySquareRoot(Stabilised):
    name = "inputs-scaled-by-square-root"
    explanation = "Queries and keys are each divided by sqrt(D) instead of D^(1/4)."
    citation = LEMMA
    needs = "d > 1"

    def scaled(self, x: Array) -> Array:
        return x / self.dtype.type(self.width**0.5)


class QueriesScaledAlone(Stabilised):
    name = "scale-on-queries-alone"
    explanation = "The queries are divided by sqrt(D) and the keys by nothing, which is right for a softmax but not for features."
    citation = LEMMA
    needs = "d > 1"

    def scaled(self, x: Array) -> Array:
        return x / self.dtype.type(self.width**0.5) if x is self.q else x


class NotStabilised(Stabilised):
    name = "features-not-stabilised"
    explanation = "Nothing is subtracted from the exponents: exponentials of large numbers overflow, or all weights underflow."
    citation = PRACTICE
    occasional = True

    def query_stabiliser(self) -> Array:
        return np.zeros((1, 1, 1, 1), self.dtype)

    def key_stabiliser(self) -> Array:
        return np.zeros((1, 1, 1, 1), self.dtype)


class StabilisedByKey(Stabilised):
    name = "stabiliser-of-each-key"
    explanation = "Each key's own maximum is subtracted, which does not cancel: all keys weigh about the same."
    citation = PRACTICE
    needs = "l > 1"

    def key_stabiliser(self) -> Array:
        return self.logarithms(self.k).max(axis=-1, keepdims=True)


class StabilisedByFeature(Stabilised):
    name = "stabiliser-of-each-feature"
    explanation = "The maximum of each feature over the keys is subtracted, which does not cancel: features change their weight."
    citation = PRACTICE
    needs = "m > 1"

    def key_stabiliser(self) -> Array:
        return self.logarithms(self.k).max(axis=-2, keepdims=True)


class QueriesByFeature(Stabilised):
    name = "stabiliser-of-queries-by-feature"
    explanation = "The maximum of each feature over the queries is subtracted, which does not cancel."
    citation = PRACTICE
    needs = "m > 1 and l > 1"

    def query_stabiliser(self) -> Array:
        return self.logarithms(self.q).max(axis=-2, keepdims=True)


class FeaturesNotAveraged(Stabilised):
    name = "features-not-over-square-root-of-count"
    explanation = "1/sqrt(M) is left out. It cancels, but eps then weighs M times too little, which shows where the sum is close to eps."
    citation = LEMMA
    needs = "m > 1 and eps >= 1"

    def normalised(self, features: Array) -> Array:
        return features


class EpsInEveryFeature(Stabilised):
    name = "eps-added-to-features"
    explanation = "eps is added to each feature instead of the denominator: keys whose features are tiny get weight."
    citation = PRACTICE
    needs = "eps > 0"

    def normalised(self, features: Array) -> Array:
        return super().normalised(features + self.dtype.type(self.eps))

    def guard(self) -> Array:
        return self.dtype.type(0)


class Trigonometric(Stabilised):
    name = "trigonometric-features"
    explanation = "The features are sines and cosines of the projections, which may be negative: the denominator may cancel."
    citation = "Choromanski et al. 2021, section 2.3, arXiv:2009.14794"

    def waves(self, x: Array) -> Array:
        turned = self.projected(x)
        return self.normalised(np.concatenate([np.sin(turned), np.cos(turned)], axis=-1)) * np.exp(self.half_square(x))

    def query_features(self) -> Array:
        return self.waves(self.q)

    def key_features(self) -> Array:
        return self.waves(self.k)


class Rectified(Stabilised):
    name = "rectified-features"
    explanation = "The features are relu(w.x) + 1e-3, the generalised kernel, instead of exponentials."
    citation = "Choromanski et al. 2021, section 2.2, arXiv:2009.14794"

    def query_features(self) -> Array:
        return np.maximum(self.projected(self.q), 0) + self.dtype.type(1e-3)

    def key_features(self) -> Array:
        return np.maximum(self.projected(self.k), 0) + self.dtype.type(1e-3)


class Hyperbolic(Stabilised):
    name = "hyperbolic-features"
    explanation = "exp(-w.x) joins exp(w.x): another unbiased estimate, which is not the one that the projection gives."
    citation = "Choromanski et al. 2021, lemma 1, second part, arXiv:2009.14794"

    def both(self, x: Array) -> Array:
        turned = self.projected(x)
        return self.normalised(np.exp(np.concatenate([turned, -turned], axis=-1) - self.half_square(x)))

    def query_features(self) -> Array:
        return self.both(self.q)

    def key_features(self) -> Array:
        return self.both(self.k)

    def guard(self) -> Array:
        return self.dtype.type(2 * self.eps)


class ProjectionTransposed(Stabilised):
    name = "projection-transposed"
    explanation = "A square projection is used transposed."
    citation = LEMMA
    needs = "m == d and d > 1"

    def rows(self) -> Array:
        return self.projection.T


class ProjectionNormalised(Stabilised):
    name = "projection-rows-normalised"
    explanation = "The rows of the projection are brought to length sqrt(D), although they are given."
    citation = "Choromanski et al. 2021, section 2.4, arXiv:2009.14794"

    def rows(self) -> Array:
        lengths = np.sqrt(np.square(self.projection).sum(axis=-1, keepdims=True))
        return self.projection / np.where(lengths == 0, 1, lengths) * self.dtype.type(sqrt(self.width))
