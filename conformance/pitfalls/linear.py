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
from oracle.formats import FORMATS

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
            "mapped": self.feature_map != self.default_map, "half": FORMATS[self.setting.dtype].is_half, "dtype": self.setting.dtype,
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


# Denominators.


@also_in(Gated)
class NotNormalised(Linear):
    name = "denominator-forgotten"
    explanation = "The weighed sum is returned without the division by the sum of the weights."
    citation = SUMS

    def divided(self, weighed: Array, total: Array) -> Array:
        return weighed


@also_in(Gated)
class DividedByLength(Linear):
    name = "denominator-is-length"
    explanation = "The weighed sum is divided by the number of keys."
    citation = SUMS

    def total(self, weights: Array) -> Array:
        return np.broadcast_to(self.counts().sum(axis=-1)[:, None], (*weights.shape[:3], 1))


@also_in(Gated)
class DenominatorOfKeys(Linear):
    name = "denominator-without-queries"
    explanation = "The denominator is the sum of the features of the keys, not weighed by those of the query."
    citation = SUMS

    def divided(self, weighed: Array, total: Array) -> Array:
        keys = (self.key_features() * self.gates()).sum(axis=-1, keepdims=True)
        return super().divided(weighed, self.counts() @ keys)


@also_in(Gated)
class DenominatorOverHeads(Linear):
    name = "denominator-over-heads"
    explanation = "The denominator adds up the weights of all heads."
    citation = SUMS
    needs = "h > 1"

    def total(self, weights: Array) -> Array:
        own = super().total(weights)
        return np.broadcast_to(own.sum(axis=1, keepdims=True), own.shape)


@also_in(Gated)
class EpsForgotten(Linear):
    name = "eps-forgotten"
    explanation = "The option `eps` has no effect: nothing is added to the denominator."
    citation = SUMS
    needs = "eps > 0"

    def divided(self, weighed: Array, total: Array) -> Array:
        return np.where(total == 0, 0, weighed / np.where(total == 0, 1, total))


@also_in(Gated)
class EpsFixed(Linear):
    name = "eps-fixed"
    explanation = "The denominator gets 1e-6, whatever the option `eps` says."
    citation = SUMS
    needs = "eps != 1e-6"

    def divided(self, weighed: Array, total: Array) -> Array:
        return weighed / (total + self.dtype.type(1e-6))


@also_in(Gated)
class EpsPerKey(Linear):
    name = "eps-added-for-every-key"
    explanation = "eps is added to every weight before they are summed: the denominator gets L times eps."
    citation = SUMS
    needs = "l > 1 and eps > 0"

    def divided(self, weighed: Array, total: Array) -> Array:
        return weighed / (total + self.counts().sum(axis=-1)[:, None] * self.eps)


@also_in(Gated)
class EpsInFeatures(Linear):
    name = "eps-added-to-features"
    explanation = "eps is added to the features of the keys instead of the denominator: numerator and denominator get it in every term."
    citation = SUMS
    needs = "eps > 0"

    def products(self) -> Array:
        return self.query_features() @ (self.key_features() + self.dtype.type(self.eps)).swapaxes(2, 3)

    def divided(self, weighed: Array, total: Array) -> Array:
        return weighed / total


@also_in(Gated)
class EpsOnBothSides(Linear):
    name = "eps-in-numerator-too"
    explanation = "eps is added to numerator and denominator."
    citation = SUMS
    needs = "eps > 0"

    def divided(self, weighed: Array, total: Array) -> Array:
        return (weighed + self.eps) / (total + self.eps)


@also_in(Gated)
class EpsOutside(Linear):
    name = "eps-added-to-quotient"
    explanation = "eps is added to the reciprocal of the denominator instead of the denominator."
    citation = SUMS
    needs = "eps > 0"

    def divided(self, weighed: Array, total: Array) -> Array:
        return weighed * (1 / total + self.eps)


@also_in(Gated)
class EpsAsFloor(Linear):
    name = "eps-as-floor"
    explanation = "The denominator is the larger of the sum and eps, not their sum."
    citation = SUMS
    needs = "eps > 0"

    def divided(self, weighed: Array, total: Array) -> Array:
        return weighed / np.maximum(total, self.dtype.type(self.eps))


@also_in(Gated)
class EpsOfKeySums(Linear):
    name = "eps-added-to-sum-of-keys"
    explanation = "eps is added to the summed features of the keys, before the inner product with those of the query."
    citation = "fla-org/flash-linear-attention, issue tracker"
    needs = "eps > 0"

    def divided(self, weighed: Array, total: Array) -> Array:
        return weighed / (total + self.query_features().sum(axis=-1, keepdims=True) * self.dtype.type(self.eps))


# Causality.


class CausalIgnored(Linear):
    name = "causal-ignored"
    explanation = "The option `causal` has no effect."
    citation = CAUSAL
    needs = "causal and l > 1"

    def counts(self) -> Array:
        return np.ones((self.length, self.length), self.dtype)


class CausalExcludesOwn(Linear):
    name = "causal-excludes-own-key"
    explanation = "A query is answered before its own key joins the state."
    citation = CAUSAL
    needs = "causal"

    def counts(self) -> Array:
        return np.tri(self.length, k=-1, dtype=self.dtype)


class CausalReadsNext(Linear):
    name = "causal-reads-next-key"
    explanation = "A query also reads the key after its own."
    citation = CAUSAL
    needs = "causal and l > 1"

    def counts(self) -> Array:
        return np.tri(self.length, k=1, dtype=self.dtype)


class CausalFlipped(Linear):
    name = "causal-flipped"
    explanation = "The upper triangle is kept: a query reads the keys from its own onwards."
    citation = CAUSAL
    needs = "causal and l > 1"

    def counts(self) -> Array:
        return np.tri(self.length, dtype=self.dtype).T


class DenominatorNotCausal(Linear):
    name = "denominator-not-causal"
    explanation = "The numerator is causal, but the denominator adds up the weights of all keys."
    citation = CAUSAL
    needs = "causal and l > 1"

    def denominator_weights(self, products: Array) -> Array:
        return products * self.gates().swapaxes(2, 3)


class NumeratorNotCausal(Linear):
    name = "numerator-not-causal"
    explanation = "The denominator is causal, but the numerator adds up all keys."
    citation = CAUSAL
    needs = "causal and l > 1"

    def numerator_weights(self, products: Array) -> Array:
        return products * self.gates().swapaxes(2, 3)


class StateNotReset(Linear):
    name = "state-kept-from-head-to-head"
    explanation = "The state is not set to zero between heads: each head goes on from where the one before it ended."
    citation = CHUNKED
    needs = "h > 1"

    def outputs(self) -> tuple[Array, ...]:
        weights = self.products()
        keys, queries = self.key_features() * self.gates(), self.query_features()
        states, sizes = keys.swapaxes(2, 3) @ self.v, keys.sum(axis=2)[..., None]
        before, sizes_before = (np.cumsum(x, axis=1) - x for x in (states, sizes))
        weighed = self.weighed(self.numerator_weights(weights)) + queries @ before
        return (self.divided(weighed, self.total(self.denominator_weights(weights)) + queries @ sizes_before).astype(self.dtype),)


class StateOfSequences(Linear):
    name = "state-kept-from-sequence-to-sequence"
    explanation = "The state is not set to zero between the sequences of a batch: each goes on from where the one before it ended."
    citation = CHUNKED
    needs = "b > 1 and causal"

    def outputs(self) -> tuple[Array, ...]:
        weights = self.products()
        keys, queries = self.key_features() * self.gates(), self.query_features()
        states, sizes = keys.swapaxes(2, 3) @ self.v, keys.sum(axis=2)[..., None]
        before, sizes_before = (np.cumsum(x, axis=0) - x for x in (states, sizes))
        weighed = self.weighed(self.numerator_weights(weights)) + queries @ before
        return (self.divided(weighed, self.total(self.denominator_weights(weights)) + queries @ sizes_before).astype(self.dtype),)
