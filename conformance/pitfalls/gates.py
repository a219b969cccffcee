"""Mistakes in the gates of scalar-gated linear attention."""

from __future__ import annotations

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.linear import Gated, sigmoid

CITATION = "Yang et al. 2023, section 4, arXiv:2312.06635"


class GateForgotten(Gated):
    name = "gate-forgotten"
    explanation = "The keys are not gated at all."
    citation = CITATION

    def gates(self) -> Array:
        return np.ones((1, 1, 1, 1), self.dtype)


class GateInNumerator(Gated):
    name = "gate-in-numerator-only"
    explanation = "The gates weigh the values, but the denominator adds up the weights without them."
    citation = CITATION

    def denominator_weights(self, products: Array) -> Array:
        return products * self.counts()


class GateInDenominator(Gated):
    name = "gate-in-denominator-only"
    explanation = "The gates are in the denominator, but the values are weighed without them."
    citation = CITATION

    def numerator_weights(self, products: Array) -> Array:
        return products * self.counts()


class GateTwice(Gated):
    name = "gate-applied-twice"
    explanation = "Each key is gated in its features and again in its values."
    citation = CITATION

    def gates(self) -> Array:
        return super().gates() ** 2


class GateTwiceInNumerator(Gated):
    name = "gate-twice-in-numerator"
    explanation = "The gate weighs features and values, so that it counts twice in the numerator and once in the denominator."
    citation = CITATION

    def numerator_weights(self, products: Array) -> Array:
        return super().numerator_weights(products) * self.gates().swapaxes(2, 3)


class GateOfMean(Gated):
    name = "gate-of-mean"
    explanation = "The gate is the sigmoid of the mean of the key instead of its sum."
    citation = CITATION
    needs = "d > 1"

    def logits(self) -> Array:
        return self.k.mean(axis=-1, keepdims=True)


class GateOfMaximum(Gated):
    name = "gate-of-maximum"
    explanation = "The gate is the sigmoid of the largest element of the key instead of its sum."
    citation = CITATION
    needs = "d > 1"

    def logits(self) -> Array:
        return self.k.max(axis=-1, keepdims=True)


class GateOfFirst(Gated):
    name = "gate-of-first-element"
    explanation = "The gate is the sigmoid of the first element of the key instead of its sum."
    citation = CITATION
    needs = "d > 1"

    def logits(self) -> Array:
        return self.k[..., :1]


class GateOfFirstHead(Gated):
    name = "gate-of-first-head"
    explanation = "All heads take the gates of the first."
    citation = CITATION
    needs = "h > 1"

    def logits(self) -> Array:
        return super().logits()[:, :1]


class GateOfFeatures(Gated):
    name = "gate-of-features"
    explanation = "The gate is the sigmoid of the sum of the key's features, which is never below a half."
    citation = CITATION

    def logits(self) -> Array:
        return self.mapped(self.k).sum(axis=-1, keepdims=True)


class GateScaled(Gated):
    name = "gate-scaled"
    explanation = "The sum of the key is divided by sqrt(D) before the sigmoid."
    citation = CITATION
    needs = "d > 1"

    def logits(self) -> Array:
        return super().logits() / self.dtype.type(self.width**0.5)


class GateOfValues(Gated):
    name = "gate-of-values"
    explanation = "The gate is the sigmoid of the sum of the row of values instead of the key."
    citation = CITATION

    def logits(self) -> Array:
        return self.v.sum(axis=-1, keepdims=True)


class GateOfQueries(Gated):
    name = "gate-of-queries-by-position"
    explanation = "The gate of a key is that of the query at its place."
    citation = CITATION

    def logits(self) -> Array:
        return self.q.sum(axis=-1, keepdims=True)


class OutputGated(Gated):
    name = "gate-on-queries"
    explanation = "The output of a query is multiplied by its own gate; the keys are not gated."
    citation = CITATION

    def gates(self) -> Array:
        return np.ones((1, 1, 1, 1), self.dtype)

    def divided(self, weighed: Array, total: Array) -> Array:
        return super().divided(weighed, total) * sigmoid(self.q.sum(axis=-1, keepdims=True))


class GateForgets(Gated):
    name = "gate-of-negative-sum"
    explanation = "The gate is 1 - sigmoid: keys are kept where they are to be left out."
    citation = CITATION

    def logits(self) -> Array:
        return -super().logits()


class GateWithoutSigmoid(Gated):
    name = "gate-without-sigmoid"
    explanation = "The sum of the key itself is the gate, which may be negative."
    citation = CITATION

    def gates(self) -> Array:
        return self.logits()


class GateExponential(Gated):
    name = "gate-exponential"
    explanation = "The gate is exp of the sum instead of its sigmoid: a softmax over keys, which gives far too much weight to large ones."
    citation = CITATION

    def gates(self) -> Array:
        return np.exp(self.logits())


class GateClipped(Gated):
    name = "gate-hard-sigmoid"
    explanation = "The sigmoid is replaced by min(max(x / 6 + 1 / 2, 0), 1)."
    citation = "Courbariaux et al. 2015, section 2.3, arXiv:1511.00363"

    def gates(self) -> Array:
        return np.clip(self.logits() / 6 + self.dtype.type(0.5), 0, 1)


class GateOfSigmoids(Gated):
    name = "gate-sums-sigmoids"
    explanation = "The sigmoids of the elements are added up, instead of the sigmoid being taken of the sum."
    citation = CITATION
    needs = "d > 1"

    def gates(self) -> Array:
        return sigmoid(self.k).sum(axis=-1, keepdims=True)


class GateElementwise(Gated):
    name = "gate-elementwise"
    explanation = "Each element of a key's features is gated by its own sigmoid, not the key as a whole."
    citation = CITATION
    needs = "d > 1"

    def gates(self) -> Array:
        return np.ones((1, 1, 1, 1), self.dtype)

    def key_features(self) -> Array:
        return super().key_features() * sigmoid(self.k)


class GateBeforeMap(Gated):
    name = "gate-before-feature-map"
    explanation = "The key is gated before the feature map, so that a closed gate leaves the feature of zero."
    citation = CITATION
    needs = "feature_map != 'relu'"

    def gates(self) -> Array:
        return np.ones((1, 1, 1, 1), self.dtype)

    def key_features(self) -> Array:
        return self.mapped(self.k * super().gates())


class GateByTanh(Gated):
    name = "gate-by-tanh-cancels"
    explanation = "The sigmoid is computed as (1 + tanh(x / 2)) / 2, which loses all digits for x << 0."
    citation = "Higham 2002, section 1.7, Accuracy and Stability of Numerical Algorithms"
    needs = "dtype != 'float16'"  # which cannot store what is lost
    occasional = True

    def gates(self) -> Array:
        return (1 + np.tanh(self.logits() / 2)) / 2


class GateOverflows(Gated):
    name = "gate-overflows"
    explanation = "The sigmoid is computed as exp(x) / (1 + exp(x)), which is NaN where exp(x) overflows."
    citation = "Blanchard et al. 2021, section 3, IMA J. Numer. Anal. 41(4), 2311"
    occasional = True

    def gates(self) -> Array:
        grown = np.exp(self.logits())
        return grown / (1 + grown)
