"""Linear attention in small steps, and the mistakes that its variants share: in features, denominators, masks and chunks.

`Linear` computes what `linear_attention` means, `Gated` the scalar-gated variant; `conformance.pitfalls.random_features` adds Performers.
A mistake in `Linear` that can be made in those as well is declared for them by `also_in`.

Shapes: B batch, H heads, L length, D query/key width, Dv value width, M features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["Gated", "Linear", "also_in", "sigmoid"]

MAPS = "Katharopoulos et al. 2020, section 3.2, arXiv:2006.16236"
SUMS = "Katharopoulos et al. 2020, eq. 4, arXiv:2006.16236"
CAUSAL = "Katharopoulos et al. 2020, eq. 9, arXiv:2006.16236"
CHUNKED = "Yang et al. 2023, section 2.2, arXiv:2312.06635"


class Linear(Steps):
    """Linear attention, as the specification means it."""

    methods: ClassVar[tuple[str, ...]] = ("linear_attention",)
    default_map: ClassVar[str] = "elu+1"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.q, self.k, self.v = (arguments[name] for name in ("q", "k", "v"))
        self.causal, self.eps = bool(arguments.get("causal")), float(arguments.get("eps", 1e-6))
        self.feature_map = arguments.get("feature_map", self.default_map)
        self.batch, self.heads, self.length, self.width = self.q.shape
        self.chunk = setting.tunables.get("block_k") or setting.tunables.get("chunk_size", 0)

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name, and what follows from them."""
        dims = dict(zip("bhlde", (*self.q.shape, self.v.shape[3]), strict=True))
        return {
            **dims, "feature_map": self.feature_map, "causal": self.causal or None, "eps": self.eps, "chunk": self.chunk,
            "mapped": self.feature_map != self.default_map, "half": self.setting.half,
            "narrow_state": self.setting.narrow_state, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and super().applies()

    # Features, (B, H, L, M).

    def mapped(self, x: Array) -> Array:
        """The feature map, elementwise."""
        if self.feature_map == "exp":
            return np.exp(x)
        if self.feature_map == "elu+1":
            return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
        return np.maximum(x, 0) + (1 if self.feature_map == "relu+1" else 0)

    def query_features(self) -> Array:
        """Of the queries."""
        return self.mapped(self.q)

    def key_features(self) -> Array:
        """Of the keys, without their gates."""
        return self.mapped(self.k)

    def gates(self) -> Array:
        """What a key weighs besides, broadcastable to (B, H, L, 1)."""
        return np.ones((1, 1, 1, 1), self.dtype)

    # Weights, (B, H, L, L).

    def counts(self) -> Array:
        """How often each key counts for each query, (L, L)."""
        return np.tri(self.length, dtype=self.dtype) if self.causal else np.ones((self.length, self.length), self.dtype)

    def products(self) -> Array:
        """Of the features of queries and keys, before mask and gates."""
        return self.query_features() @ self.key_features().swapaxes(2, 3)

    def numerator_weights(self, products: Array) -> Array:
        """What weighs the values."""
        return products * self.gates().swapaxes(2, 3) * self.counts()

    def denominator_weights(self, products: Array) -> Array:
        """What is added up to the denominator."""
        return products * self.gates().swapaxes(2, 3) * self.counts()

    # Sums.

    def weighed(self, weights: Array) -> Array:
        """The numerator, (B, H, L, Dv)."""
        return weights @ self.v

    def total(self, weights: Array) -> Array:
        """The sum of the weights, (B, H, L, 1)."""
        return weights.sum(axis=-1, keepdims=True)

    def divided(self, weighed: Array, total: Array) -> Array:
        """The quotient."""
        return weighed / (total + self.eps)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        products = self.products()
        weighed, total = self.weighed(self.numerator_weights(products)), self.total(self.denominator_weights(products))
        return (self.divided(weighed, total).astype(self.dtype),)

    # Chunks: (L,).

    def chunk_of(self) -> Array:
        """The number of each token's chunk."""
        return np.arange(self.length) // max(self.chunk, 1)


class Gated(Linear):
    """Scalar-gated linear attention."""

    methods = ("scalar_gated_linear_attention",)
    default_map = "relu+1"

    def logits(self) -> Array:
        """Of the gates, (B, H, L, 1)."""
        return self.k.sum(axis=-1, keepdims=True)

    def gates(self) -> Array:
        """The sigmoid of the sum of each key."""
        return sigmoid(self.logits())


def sigmoid(x: Array) -> Array:
    """Accurate relative to itself."""
    tail = np.exp(-np.abs(x))
    return np.where(x > 0, 1, tail) / (1 + tail)


def also_in(*references: type[Linear]) -> Callable[[type[Linear]], type[Linear]]:
    """Declare a mistake in `Linear` as one in further computations, whose own steps it leaves as they are."""

    def declare(mistake: type[Linear]) -> type[Linear]:
        for reference in references:
            type(mistake.__name__, (mistake, reference), {"name": mistake.name, "methods": reference.methods})
        return mistake

    return declare


# Feature maps.


@also_in(Gated)
class IdentityFeatures(Linear):
    name = "feature-map-identity"
    explanation = "Queries and keys are their own features: weights of either sign cancel, and so may the denominator."
    citation = MAPS

    def mapped(self, x: Array) -> Array:
        return x


@also_in(Gated)
class TanhFeatures(Linear):
    name = "feature-map-tanh"
    explanation = "The features are tanh(x), which may be negative: the denominator may cancel."
    citation = MAPS

    def mapped(self, x: Array) -> Array:
        return np.tanh(x)


@also_in(Gated)
class MapIgnored(Linear):
    name = "feature-map-ignored"
    explanation = "The option `feature_map` has no effect."
    citation = MAPS
    needs = "mapped"

    def mapped(self, x: Array) -> Array:
        self.feature_map = self.default_map
        return super().mapped(x)


@also_in(Gated)
class ExponentialAboveOne(Linear):
    name = "elu-plus-one-as-max-of-exp-and-one"
    explanation = "elu(x) + 1 is taken for max(exp(x), 1), which is exp(x) where x + 1 is meant and 1 where exp(x) is."
    citation = MAPS
    needs = "feature_map == 'elu+1'"

    def mapped(self, x: Array) -> Array:
        return np.maximum(np.exp(x), 1)


@also_in(Gated)
class EluCancels(Linear):
    name = "elu-plus-one-cancels"
    explanation = "elu(x) + 1 is computed as (exp(x) - 1) + 1, which loses all digits of exp(x) for x << 0."
    citation = "Higham 2002, section 1.7, Accuracy and Stability of Numerical Algorithms"
    needs = "feature_map == 'elu+1' and dtype != 'float16'"  # which cannot store what is lost
    occasional = True

    def mapped(self, x: Array) -> Array:
        below: Array = np.expm1(np.minimum(x, 0))
        return np.where(x > 0, x + 1, below + 1)


@also_in(Gated)
class EluWithoutOne(Linear):
    name = "elu-without-one"
    explanation = "The features are elu(x), negative for negative x, instead of elu(x) + 1."
    citation = MAPS
    needs = "feature_map == 'elu+1'"

    def mapped(self, x: Array) -> Array:
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


@also_in(Gated)
class ReluWithoutOne(Linear):
    name = "relu-without-one"
    explanation = "The features are relu(x) where relu(x) + 1 is meant: rows and columns of negative numbers weigh nothing."
    citation = MAPS
    needs = "feature_map == 'relu+1'"

    def mapped(self, x: Array) -> Array:
        return np.maximum(x, 0)


@also_in(Gated)
class ReluForElu(Linear):
    name = "elu-plus-one-as-relu-plus-one"
    explanation = "Below zero the features are 1 instead of exp(x)."
    citation = MAPS
    needs = "feature_map == 'elu+1'"

    def mapped(self, x: Array) -> Array:
        return np.maximum(x, 0) + 1


@also_in(Gated)
class KeysShiftedOneByOne(Linear):
    name = "exponential-shifted-by-each-keys-maximum"
    explanation = "Each key's own maximum is subtracted before exp, which does not cancel in the quotient: all keys weigh alike."
    citation = "Choromanski et al. 2021, appendix, arXiv:2009.14794"
    needs = "feature_map == 'exp'"

    def key_features(self) -> Array:
        return np.exp(self.k - self.k.max(axis=-1, keepdims=True))


@also_in(Gated)
class QueriesOnly(Linear):
    name = "feature-map-of-queries-only"
    explanation = "The keys enter as they are, without the feature map."
    citation = SUMS

    def key_features(self) -> Array:
        return self.k


@also_in(Gated)
class KeysOnly(Linear):
    name = "feature-map-of-keys-only"
    explanation = "The queries enter as they are, without the feature map."
    citation = SUMS

    def query_features(self) -> Array:
        return self.q


@also_in(Gated)
class QueriesScaled(Linear):
    name = "queries-scaled"
    explanation = "The queries are divided by sqrt(D) as in softmax attention; linear attention has no scale."
    citation = SUMS
    needs = "d > 1"

    def query_features(self) -> Array:
        return self.mapped(self.q / self.dtype.type(sqrt(self.width)))


@also_in(Gated)
class BothScaled(Linear):
    name = "queries-and-keys-scaled"
    explanation = "Queries and keys are each divided by D^(1/4); linear attention has no scale."
    citation = SUMS
    needs = "d > 1"

    def query_features(self) -> Array:
        return self.mapped(self.q / self.dtype.type(self.width**0.25))

    def key_features(self) -> Array:
        return self.mapped(self.k / self.dtype.type(self.width**0.25))


class FeaturesOverKeys(Linear):
    name = "features-normalised-over-keys"
    explanation = "The features of the keys are divided by their sum over all keys, as in efficient attention."
    citation = "Shen et al. 2021, section 3.2, arXiv:1812.01243"
    needs = "l > 1"

    def key_features(self) -> Array:
        made = super().key_features()
        return made / made.sum(axis=2, keepdims=True)
