"""Mistakes of the blockwise transformer: those of its attention, and those of the feed-forward network that finishes each block.

Shapes: B batch, H heads, L length, D width of a head, F inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Reference, declare_dense
from conformance.pitfalls.ring import (
    DENSE_MISTAKES,
    EmptyPartsNan,
    LastPartOnly,
    LastStepMissing,
    LaterStepsUnmasked,
    LocalCausality,
    MergedInBaseTwo,
    OwnKeysOnly,
    OwnKeysTwice,
    PartsAddedUp,
    PartsAveraged,
    RingSteps,
    SkippedByRank,
    ValuesStay,
    ZigzagNotUndone,
)

__all__ = ["Blockwise"]


class Blockwise(RingSteps):
    """Attention and the feed-forward network of a block."""

    methods: ClassVar[tuple[str, ...]] = ("blockwise_transformer",)
    citation: ClassVar[str] = "Liu and Abbeel 2023, section 3, arXiv:2305.19370"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.w_in, self.w_out, self.silu = arguments["w_in"], arguments["w_out"], arguments.get("activation") == "silu"

    def facts(self) -> dict[str, Any]:
        """Those of a ring, and the inner width."""
        return {**super().facts(), "f": self.w_in.shape[1], "silu": self.silu}

    def residual(self) -> Array:
        """What is added to the attention, (B, H, L, D)."""
        return self.q

    def tokens(self, x: Array) -> Array:
        """The heads of each token side by side, (B, L, H D)."""
        return x.swapaxes(1, 2).reshape(self.batch, self.queries, self.heads * self.width)

    def active(self, inner: Array) -> Array:
        """The activation."""
        return inner / (1 + np.exp(-inner)) if self.silu else np.maximum(inner, 0)

    def network(self, x: Array) -> Array:
        """The feed-forward network of each token."""
        return self.active(x @ self.w_in) @ self.w_out

    def block(self, x: Array) -> Array:
        """What is made of the attention with its residual."""
        return x + self.network(x)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return (self.block(self.tokens(self.attended() + self.residual())),)


def declare_of_ring(*mistakes: type[RingSteps]) -> None:
    """Declare mistakes in the attention of a block as well."""
    for mistake in mistakes:
        facts = {"name": mistake.name, "explanation": mistake.explanation, "citation": mistake.citation, "methods": Blockwise.methods}
        type(f"blockwise: {mistake.name}", (Blockwise, mistake), facts)


declare_of_ring(
    LocalCausality, LaterStepsUnmasked, SkippedByRank, LastStepMissing, OwnKeysOnly, OwnKeysTwice, ValuesStay, PartsAveraged, PartsAddedUp,
    MergedInBaseTwo, LastPartOnly, EmptyPartsNan, ZigzagNotUndone,
)  # fmt: skip


class ResidualForgotten(Blockwise):
    name = "residual-forgotten"
    explanation = "The queries are not added to the attention."

    def residual(self) -> Array:
        return np.zeros_like(self.q)


class SecondResidualForgotten(Blockwise):
    name = "feed-forward-residual-forgotten"
    explanation = "Only what the feed-forward network makes is returned, without what it was made of."

    def block(self, x: Array) -> Array:
        return self.network(x)


class FeedForwardForgotten(Blockwise):
    name = "feed-forward-forgotten"
    explanation = "The attention with its residual is returned, without the feed-forward network."
    needs = "f > 0"

    def network(self, x: Array) -> Array:
        return np.zeros_like(x)


class FeedForwardOfAttention(Blockwise):
    name = "feed-forward-without-residual"
    explanation = "The feed-forward network sees the attention alone; the residual is added outside of it."
    needs = "f > 0"

    def outputs(self) -> tuple[Array, ...]:
        attended = self.tokens(self.attended())
        return (attended + self.tokens(self.q) + self.network(attended),)


class HeadsNotTransposed(Blockwise):
    name = "heads-not-transposed"
    explanation = "(B, H, L, D) is reshaped to (B, L, H D) without exchanging heads and tokens."
    needs = "h > 1 and l > 1"

    def tokens(self, x: Array) -> Array:
        return x.reshape(self.batch, self.queries, self.heads * self.width)


class OtherActivation(Blockwise):
    name = "activation-ignored"
    explanation = "The activation is ReLU whatever the option says."
    needs = "silu and f > 0"

    def active(self, inner: Array) -> Array:
        return np.maximum(inner, 0)


class NetworkPerStep(Blockwise):
    name = "feed-forward-per-ring-step"
    explanation = "The feed-forward network is applied to the part of each ring step, and the results are added up."
    needs = "world > 1 and f > 0"

    def outputs(self) -> tuple[Array, ...]:
        outs, lses = self.parts()
        highest = lses.max(axis=0)
        weights = np.exp(lses - np.where(np.isneginf(highest), 0.0, highest))
        shares = weights / np.where(weights.sum(axis=0) == 0, 1.0, weights.sum(axis=0))
        whole = self.tokens(self.attended() + self.residual())
        return (whole + sum(self.network(self.tokens(part)) for part in shares * outs) + self.network(self.tokens(self.residual())),)


class PlainBlock(Blockwise):
    """The same without a ring: for dense mistakes, whose outputs are the attention's."""

    def attended(self) -> Array:
        """(B, H, L, D), by the dense steps."""
        return Reference.outputs(self)[0]


declare_dense(PlainBlock, "blockwise_transformer", DENSE_MISTAKES)
