"""Mistakes of linear attention in its sums: in the denominator, in what is causal, and in states that are not begun anew."""

from __future__ import annotations

import numpy as np

from conformance.pitfalls.dense import Array
from conformance.pitfalls.linear import CAUSAL, CHUNKED, SUMS, Gated, Linear, also_in

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
    needs = "eps > 0 and (dtype != 'float16' or eps > 1e-5)"  # whose features have coarser steps

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
    needs = "l > 1 and eps > 0 and (dtype != 'float16' or eps > 1e-5)"  # whose features have coarser steps

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
    needs = "eps > 0 and (dtype != 'float16' or eps > 1e-5)"  # whose features have coarser steps

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
