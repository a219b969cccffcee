"""Mistakes of mixtures of depths: which tokens go through a block, and what becomes of the others.

Shapes: B sequences, L length, D width, F inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from conformance.pitfalls.experts import silu

__all__ = ["Depths"]

DEPTHS = "Raposo et al. 2024, eq. 1, arXiv:2404.02258"


class Depths(Steps):
    """A block that only some tokens go through."""

    methods: ClassVar[tuple[str, ...]] = ("mixture_of_depths",)
    citation: ClassVar[str] = DEPTHS

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.hidden, self.router, self.w_in, self.w_out = (arguments[name] for name in ("hidden", "router", "w_in", "w_out"))
        self.capacity, self.threshold = arguments.get("capacity"), arguments.get("threshold")
        self.batch, self.length, self.width = self.hidden.shape

    def facts(self) -> dict[str, Any]:
        """Dimensions and options, and whether some tokens pass the block by."""
        chosen = Depths.chosen(self)
        return {
            "b": self.batch, "l": self.length, "d": self.width, "f": self.w_in.shape[1], "capacity": self.capacity,
            "threshold": self.threshold, "dtype": self.setting.dtype, "some": bool(chosen.any()), "others": not bool(chosen.all()),
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.hidden.size > 0 and super().applies()

    def scores(self) -> Array:
        """(B, L)."""
        return (self.hidden * self.router).sum(axis=-1)

    def by_number(self, scores: Array, count: int) -> Array:
        """The largest scores of every sequence, bool (B, L)."""
        order = np.argsort(-scores, axis=-1, kind="stable")[:, : max(count, 0)]
        chosen = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(chosen, order, True, axis=-1)
        return chosen

    def chosen(self) -> Array:
        """Which tokens are processed, bool (B, L)."""
        scores = self.scores()
        return scores > self.threshold if self.capacity is None else self.by_number(scores, self.capacity)

    def block(self, x: Array) -> Array:
        """f."""
        return silu(x @ self.w_in) @ self.w_out

    def factor(self) -> Array:
        """Of what the block makes, (B, L, 1)."""
        return self.scores()[..., None]

    def skipped(self) -> Array:
        """What tokens become that pass the block by."""
        return self.hidden

    def processed(self) -> Array:
        """What the others become."""
        return self.hidden + self.factor() * self.block(self.hidden)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        chosen = self.chosen()
        out: Array = np.where(chosen[..., None], self.processed(), self.skipped())
        return out.astype(self.dtype), chosen


class ScoreForgotten(Depths):
    name = "score-forgotten"
    explanation = "The block's output is added without the router's score, which then has no gradient."
    needs = "some"
    occasional = True

    def factor(self) -> Array:
        return np.ones_like(super().factor())


class ScoreThroughSigmoid(Depths):
    name = "score-through-sigmoid"
    explanation = "The block's output is multiplied by the sigmoid of the score."
    needs = "some"
    occasional = True

    def factor(self) -> Array:
        return 1 / (1 + np.exp(-super().factor()))


class ResidualForgotten(Depths):
    name = "residual-forgotten"
    explanation = "A processed token is the block's output alone, without itself."
    needs = "some"
    occasional = True

    def processed(self) -> Array:
        return self.factor() * self.block(self.hidden)


class SkippedZero(Depths):
    name = "skipped-tokens-zero"
    explanation = "Tokens that pass the block by become zeros instead of staying what they are."
    needs = "others"
    occasional = True

    def skipped(self) -> Array:
        return np.zeros_like(self.hidden)


class SkippedScaled(Depths):
    name = "skipped-tokens-scaled"
    explanation = "Tokens that pass the block by are multiplied by 1 + their score."
    needs = "others"
    occasional = True

    def skipped(self) -> Array:
        return self.hidden * (1 + self.scores()[..., None])


class SmallestChosen(Depths):
    name = "smallest-scores-chosen"
    explanation = "The tokens of least score are processed, or those at or below the threshold."
    occasional = True

    def chosen(self) -> Array:
        scores = self.scores()
        return scores <= self.threshold if self.capacity is None else self.by_number(-scores, self.capacity)


class ChosenInBatch(Depths):
    name = "chosen-in-whole-batch"
    explanation = "Tokens of all sequences compete for capacity times the number of sequences; each sequence has a capacity of its own."
    needs = "capacity is not None and b > 1"
    occasional = True

    def by_number(self, scores: Array, count: int) -> Array:
        return super().by_number(scores.reshape(1, -1), count * self.batch).reshape(scores.shape)


class LaterOfEqual(Depths):
    name = "ties-to-the-later-token"
    explanation = "Of tokens with equal scores the later ones are processed."
    needs = "capacity is not None and l > 1"
    occasional = True

    def by_number(self, scores: Array, count: int) -> Array:
        return super().by_number(scores[:, ::-1], count)[:, ::-1]


class OneMore(Depths):
    name = "capacity-one-too-many"
    explanation = "One token more than the capacity is processed."
    needs = "capacity is not None"
    occasional = True

    def by_number(self, scores: Array, count: int) -> Array:
        return super().by_number(scores, count + 1)


class AtThreshold(Depths):
    name = "at-the-threshold-too"
    explanation = "Tokens whose score equals the threshold are processed as well."
    needs = "threshold is not None"
    occasional = True

    def chosen(self) -> Array:
        return self.scores() >= self.threshold


class FirstTokens(Depths):
    name = "first-tokens-chosen"
    explanation = "The first tokens of a sequence are processed, whatever their scores."
    needs = "capacity is not None and l > 1"
    occasional = True

    def by_number(self, scores: Array, count: int) -> Array:
        return np.broadcast_to(np.arange(self.length) < count, scores.shape).copy()
