"""Mistakes of decoding with drafts: what is accepted, and what is left to sample from.

Shapes: B sequences, n drafted tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["Accept", "Residual"]

LEVIATHAN = "Leviathan et al. 2023, algorithm 1, arXiv:2211.17192"


class Accept(Steps):
    """How many drafted tokens come before the first that is not accepted."""

    methods: ClassVar[tuple[str, ...]] = ("speculative_accept",)
    citation: ClassVar[str] = LEVIATHAN

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.ties = arguments.get("ties", "accepted")
        self.p, self.q, self.draft, self.u = (arguments[name] for name in ("p", "q", "draft", "u"))
        self.batch, self.drafted = self.draft.shape
        self.vocabulary = self.p.shape[-1]

    def facts(self) -> dict[str, Any]:
        """Dimensions and conventions."""
        return {"b": self.batch, "n": self.drafted, "v": self.vocabulary, "ties": self.ties, "dtype": self.setting.dtype}

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.draft.size > 0 and super().applies()

    def of_draft(self, x: Array) -> Array:
        """Probabilities of the drafted tokens, (B, n)."""
        return np.take_along_axis(x[:, : self.drafted], self.draft[..., None], axis=-1)[..., 0]

    def ratios(self) -> Array:
        """What u is compared with, (B, n)."""
        own, other = self.of_draft(self.p), self.of_draft(self.q)
        return np.where(other == 0, np.inf, own / other)

    def uniforms(self) -> Array:
        """(B, n)."""
        return self.u

    def accepts(self) -> Array:
        """Bool (B, n)."""
        u, ratios = self.uniforms(), self.ratios()
        return u <= ratios if self.ties == "accepted" else u < ratios

    def count(self) -> Array:
        """(B,)."""
        return np.cumprod(self.accepts(), axis=-1).sum(axis=-1)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return (self.count().astype(np.int64),)


class Inverted(Accept):
    name = "accepted-where-above"
    explanation = "A token is accepted where u > p / q, so the unlikely ones are kept."
    occasional = True

    def accepts(self) -> Array:
        return self.uniforms() > self.ratios()


class RatioUpsideDown(Accept):
    name = "ratio-upside-down"
    explanation = "u is compared with q / p."
    occasional = True

    def ratios(self) -> Array:
        own, other = self.of_draft(self.p), self.of_draft(self.q)
        return np.where(own == 0, np.inf, other / own)


class AllCounted(Accept):
    name = "all-accepted-counted"
    explanation = "Accepted tokens behind the first rejected one count as well."
    needs = "n > 1"
    occasional = True

    def count(self) -> Array:
        return self.accepts().sum(axis=-1)


class AllOrNothing(Accept):
    name = "all-or-nothing"
    explanation = "Where some token is rejected none counts, not even those before it."
    needs = "n > 1"
    occasional = True

    def count(self) -> Array:
        return np.where(self.accepts().all(axis=-1), self.drafted, 0)


class BonusCounted(Accept):
    name = "bonus-token-counted"
    explanation = "The token that is sampled at the end counts as accepted: one too many."

    def count(self) -> Array:
        return super().count() + 1


class NextRow(Accept):
    name = "target-row-one-ahead"
    explanation = "Drafted token i is looked up in row i + 1 of p, the one that it was put into."
    needs = "v > 1"
    occasional = True

    def of_draft(self, x: Array) -> Array:
        return super().of_draft(x[:, 1:] if x is self.p else x)


class NeverRandom(Accept):
    name = "accepted-only-where-likelier"
    explanation = "A token is accepted only where p >= q, whatever u says."
    occasional = True

    def uniforms(self) -> Array:
        return np.ones_like(self.u)


class AgainstTarget(Accept):
    name = "compared-with-target-alone"
    explanation = "u is compared with p, not with p / q: too few tokens are kept."
    occasional = True

    def ratios(self) -> Array:
        return self.of_draft(self.p)


class Greedy(Accept):
    name = "accepted-where-most-likely"
    explanation = "A token is accepted where it is the target model's most likely one, as greedy decoding has it."
    occasional = True

    def accepts(self) -> Array:
        return self.p[:, : self.drafted].argmax(axis=-1) == self.draft


class OneNumberForAll(Accept):
    name = "first-number-for-all"
    explanation = "The first random number of a sequence decides about all its tokens."
    needs = "n > 1"
    occasional = True

    def uniforms(self) -> Array:
        return np.broadcast_to(self.u[:, :1], self.u.shape)


class Strict(Accept):
    name = "equal-is-rejected"
    explanation = "A token with u = p / q exactly is rejected, although the method accepts it (u = p = 0 as well)."
    needs = "ties == 'accepted'"
    occasional = True

    def accepts(self) -> Array:
        return self.uniforms() < self.ratios()


class NotStrict(Accept):
    name = "equal-is-accepted"
    explanation = "A token with u = p / q exactly is accepted, although ties are declared to be rejected."
    needs = "ties == 'rejected'"
    occasional = True

    def accepts(self) -> Array:
        return self.uniforms() <= self.ratios()


class ImpossibleRejected(Accept):
    name = "impossible-draft-rejected"
    explanation = "A token that the draft model gives no probability gets the ratio NaN, or 0, and is rejected."
    occasional = True

    def ratios(self) -> Array:
        return np.where(self.of_draft(self.q) == 0, -1.0, super().ratios())


class RatioInStorage(Accept):
    name = "ratio-in-storage-precision"
    explanation = "p / q is rounded to 16 bits before it is compared."
    needs = "dtype == 'float16' or dtype == 'bfloat16'"
    occasional = True

    def ratios(self) -> Array:
        return self.stored(super().ratios())


class Residual(Steps):
    """norm(max(p - q, 0)), p where that is nothing."""

    methods: ClassVar[tuple[str, ...]] = ("speculative_residual",)
    citation: ClassVar[str] = "Leviathan et al. 2023, section 2.3, arXiv:2211.17192"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.nothing_left = arguments.get("nothing_left", "target")
        self.p, self.q = arguments["p"], arguments["q"]

    def facts(self) -> dict[str, Any]:
        """Dimensions, conventions, and whether some row has something, or nothing, left."""
        left = np.maximum(self.p - self.q, 0).sum(axis=-1)
        return {
            "b": self.p.shape[0], "v": self.p.shape[1], "nothing_left": self.nothing_left, "dtype": self.setting.dtype,
            "some": bool((left > 0).any()), "none": bool((left == 0).any()),
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.p.size > 0 and super().applies()

    def left(self) -> Array:
        """What is left of p, (B, V)."""
        return np.maximum(self.p - self.q, 0)

    def total(self, left: Array) -> Array:
        """What it is divided by, (B, 1)."""
        return left.sum(axis=-1, keepdims=True)

    def where_nothing(self) -> Array:
        """Rows of which nothing is left."""
        return self.p if self.nothing_left == "target" else np.zeros_like(self.p)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        left = self.left()
        empty = (np.maximum(self.p - self.q, 0) == 0).all(axis=-1, keepdims=True)
        return (np.where(empty, self.where_nothing(), left / self.total(left)).astype(self.dtype),)


class NotClipped(Residual):
    name = "residual-not-clipped"
    explanation = "Negative differences are kept, so that the row holds negative probabilities."
    needs = "some and v > 1"
    occasional = True

    def left(self) -> Array:
        return self.p - self.q

    def total(self, left: Array) -> Array:
        return np.maximum(left, 0).sum(axis=-1, keepdims=True)


class NotDivided(Residual):
    name = "residual-not-renormalised"
    explanation = "The differences are not divided by their sum: they add up to the probability of rejection."
    needs = "some"
    occasional = True

    def total(self, left: Array) -> Array:
        return np.ones((len(left), 1), self.dtype)


class Absolute(Residual):
    name = "residual-of-absolute-differences"
    explanation = "|p - q| takes the place of max(p - q, 0): tokens that the draft preferred are sampled again."
    needs = "some"
    occasional = True

    def left(self) -> Array:
        return np.abs(self.p - self.q)


class OtherWayRound(Residual):
    name = "residual-of-draft"
    explanation = "max(q - p, 0) is normalised: just the tokens that were rejected."
    needs = "some"
    occasional = True

    def left(self) -> Array:
        return np.maximum(self.q - self.p, 0)


class TargetItself(Residual):
    name = "residual-is-target"
    explanation = "p itself is sampled from; with what was accepted before, tokens that both models like come too often."
    needs = "some"
    occasional = True

    def left(self) -> Array:
        return self.p


class SoftmaxOfResidual(Residual):
    name = "residual-through-softmax"
    explanation = "The differences go through a softmax, which gives every token a probability."
    needs = "some and v > 1"
    occasional = True

    def left(self) -> Array:
        return np.exp(super().left())


class WrongSum(Residual):
    name = "divided-by-sum-before-clipping"
    explanation = "The differences are divided by their sum before they were clipped, which is 0 but for rounding."
    needs = "some"
    occasional = True

    def total(self, left: Array) -> Array:
        return (self.p - self.q).sum(axis=-1, keepdims=True)


class NanWhereEqual(Residual):
    name = "nan-where-nothing-is-left"
    explanation = "Where p and q are the same, 0 / 0 is returned."
    needs = "none"

    def where_nothing(self) -> Array:
        return np.full_like(self.p, np.nan)


class EvenWhereEqual(Residual):
    name = "even-where-nothing-is-left"
    explanation = "Where nothing is left all tokens become equally probable, as by a small number that is added to each."
    needs = "none and v > 1"
    occasional = True

    def where_nothing(self) -> Array:
        return np.full_like(self.p, 1 / self.p.shape[-1])


class ZerosWhereEqual(Residual):
    name = "zeros-where-nothing-is-left"
    explanation = "Where p and q are the same the row is zero, from which nothing can be sampled."
    needs = "none and nothing_left == 'target'"

    def where_nothing(self) -> Array:
        return np.zeros_like(self.p)
