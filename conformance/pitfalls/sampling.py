"""Mistakes of speculative sampling: what is drawn where a token is rejected, what where all are accepted, and what stands behind.

Shapes: B sequences, n drafted tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting, decoding
from conformance.pitfalls.decoding import Accept
from conformance.pitfalls.dense import Array, Steps

__all__ = ["Sampling"]

NO_TOKEN = -1


class Sampling(Accept):
    """Accepted tokens, then one that is drawn from what is left of p, or from its last row."""

    methods: ClassVar[tuple[str, ...]] = ("speculative_sampling",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.u_sample = arguments["u_sample"]

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.batch > 0 and self.vocabulary > 1 and Steps.applies(self)

    def left(self) -> Array:
        """Weights where token i is the first rejected one, (B, n, V)."""
        left = np.maximum(self.p[:, : self.drafted] - self.q, 0)
        return np.where(left.sum(axis=-1, keepdims=True) > 0, left, self.p[:, : self.drafted])

    def bonus(self) -> Array:
        """Weights where all are accepted, (B, 1, V)."""
        return self.p[:, self.drafted :]

    def total(self, cumulative: Array) -> Array:
        """What u is multiplied by, (B, 1)."""
        return cumulative[..., -1:]

    def numbers(self) -> Array:
        """By which the last token is drawn, (B,)."""
        return self.u_sample

    def drawn(self, weights: Array) -> Array:
        """From weights (B, V), (B,)."""
        cumulative = np.cumsum(weights, axis=-1)
        beyond = cumulative > self.numbers()[:, None] * self.total(cumulative)
        return np.where(beyond.any(axis=-1), beyond.argmax(axis=-1), self.vocabulary - 1)

    def tail(self, tokens: Array, count: Array) -> Array:
        """What stands behind the last token."""
        return np.where(np.arange(self.drafted + 1) > count[:, None], NO_TOKEN, tokens)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        count, rows = self.count(), np.concatenate([self.left(), self.bonus()], axis=1)
        tokens = np.concatenate([self.draft, np.full((self.batch, 1), NO_TOKEN)], axis=1)
        tokens[np.arange(self.batch), count] = self.drawn(rows[np.arange(self.batch), count])
        return (self.tail(tokens, count).astype(np.int64),)


def _shared(mistakes: tuple[type[Accept], ...]) -> None:
    """Declare mistakes of acceptance as mistakes in sampling, whose other steps they leave as they are."""
    for mistake in mistakes:
        type(mistake.__name__, (mistake, Sampling), {"name": mistake.name, "methods": Sampling.methods})


_shared((
    decoding.Inverted, decoding.RatioUpsideDown, decoding.NextRow, decoding.NeverRandom, decoding.AgainstTarget, decoding.Greedy,
    decoding.OneNumberForAll, decoding.ImpossibleRejected,
))  # fmt: skip


class SamplingNotClipped(Sampling):
    name = "residual-not-clipped"
    explanation = "Where a token is rejected, the next is drawn from the cumulative sums of p - q, negative differences included."
    needs = "n > 0"
    occasional = True

    def left(self) -> Array:
        return self.p[:, : self.drafted] - self.q

    def total(self, cumulative: Array) -> Array:
        return np.ones_like(cumulative[..., -1:])


class SamplingNotDivided(Sampling):
    name = "residual-not-renormalised"
    explanation = "The number is compared with cumulative sums of max(p - q, 0) that were not divided by their total."
    needs = "n > 0"
    occasional = True

    def total(self, cumulative: Array) -> Array:
        return np.ones_like(cumulative[..., -1:])


class SampledFromTarget(Sampling):
    name = "residual-is-target"
    explanation = "Where a token is rejected, the next is drawn from p itself."
    needs = "n > 0"
    occasional = True

    def left(self) -> Array:
        return self.p[:, : self.drafted]


class SampledAbsolute(Sampling):
    name = "residual-of-absolute-differences"
    explanation = "Where a token is rejected, the next is drawn from |p - q|."
    needs = "n > 0"
    occasional = True

    def left(self) -> Array:
        left = np.abs(self.p[:, : self.drafted] - self.q)
        return np.where(left.sum(axis=-1, keepdims=True) > 0, left, self.p[:, : self.drafted])


class BonusOfDraft(Sampling):
    name = "bonus-token-from-the-draft"
    explanation = "Where all tokens are accepted, the last one is drawn from the draft model."
    needs = "n > 0"
    occasional = True

    def bonus(self) -> Array:
        return self.q[:, -1:]


class BonusOfRowBefore(Sampling):
    name = "bonus-token-from-the-row-before"
    explanation = "Where all tokens are accepted, the last one is drawn from p[:, n - 1] again."
    needs = "n > 0"
    occasional = True

    def bonus(self) -> Array:
        return self.p[:, self.drafted - 1 : self.drafted]


class BonusMissing(Sampling):
    name = "bonus-token-missing"
    explanation = "Where all tokens are accepted, no other is drawn."
    needs = "n > 0"
    occasional = True

    def outputs(self) -> tuple[Array, ...]:
        (tokens,) = super().outputs()
        tokens[:, -1] = NO_TOKEN
        return (tokens,)


class BonusEverywhere(Sampling):
    name = "rejected-token-from-last-row"
    explanation = "Where a token is rejected, the next is drawn from the last row of p too."
    needs = "n > 0"
    occasional = True

    def left(self) -> Array:
        return np.broadcast_to(self.p[:, self.drafted :], (self.batch, self.drafted, self.vocabulary))


class DraftKept(Sampling):
    name = "draft-kept-behind-rejection"
    explanation = "Drafted tokens behind the rejected one stay in the row."
    needs = "n > 1"
    occasional = True

    def tail(self, tokens: Array, count: Array) -> Array:
        return tokens


class NumberReused(Sampling):
    name = "rejecting-number-used-again"
    explanation = "The number that rejected a token also draws the next one, which is then not independent."
    needs = "n > 0"
    occasional = True

    def numbers(self) -> Array:
        count = self.count()
        last = np.take_along_axis(self.u, np.minimum(count, self.drafted - 1)[:, None], axis=1)[:, 0]
        return np.where(count < self.drafted, last, self.u_sample)


class MostLikely(Sampling):
    name = "last-token-most-likely"
    explanation = "The last token is the most probable one instead of one that is drawn."
    occasional = True

    def drawn(self, weights: Array) -> Array:
        return weights.argmax(axis=-1)


class FromTheEnd(Sampling):
    name = "drawn-from-the-end"
    explanation = "Probabilities are added up from the last token: a fair draw, but not that of the number that was given."
    occasional = True

    def drawn(self, weights: Array) -> Array:
        return self.vocabulary - 1 - super().drawn(weights[..., ::-1])


class OneTokenLater(Sampling):
    name = "drawn-one-token-later"
    explanation = "The token behind the one whose share holds the number is taken."
    occasional = True

    def drawn(self, weights: Array) -> Array:
        return np.minimum(super().drawn(weights) + 1, self.vocabulary - 1)
