"""Mistakes of the delta rules: what is replaced, by how much, before or after the decay, and in the chunks of their WY form.

Those of gates, scales, states and chunks in general are the mistakes of `gated`, made in this recurrence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting, gated
from conformance.pitfalls.dense import Array
from conformance.pitfalls.gated import Chunked, Recurrent

DELTA = "Yang et al. 2024, eq. 5, arXiv:2406.06484"
GATED = "Yang et al. 2025, eq. 10, arXiv:2412.06464"
WY = "Yang et al. 2024, section 3.2, arXiv:2406.06484"


# Below this length a key is taken as zero.
FLOOR = 1e-6


class Delta(Recurrent):
    """The recurrence of `Recurrent` with values that replace what the state holds for their key."""

    methods: ClassVar[tuple[str, ...]] = ("delta_rule", "gated_delta_rule")

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.beta: Array = arguments.get("beta")
        self.retains = False

    def facts(self) -> dict[str, Any]:
        """Those of a recurrence, and whether something is replaced only in part, or by a key that is not of length 1."""
        return {
            **super().facts(), "earlier": self.length > 1 or self.initial is not None,
            "partly": lambda: bool(((self.beta > 1e-3) & (self.beta < 0.99)).any()),
            "lengths": lambda: bool((np.abs((self.k**2).sum(axis=-1) - 1) > 1e-2).any()),
        }  # fmt: skip

    def right_gates(self) -> Array:
        """Logarithms of the decays, (B, H, L, 1)."""
        return self.arguments["g"][..., None] if "g" in self.arguments else np.zeros((*self.q.shape[:3], 1), self.dtype)

    def fraction(self, t: int) -> Array:
        """Which part is replaced, (B, H, 1)."""
        return self.beta[:, :, t, None]

    def known(self, before: Array, decayed: Array, t: int) -> Array:
        """What the state holds for the key of token t, (B, H, Dv)."""
        return np.matmul(self.key(t)[:, :, None], decayed)[:, :, 0]

    def written(self, known: Array, t: int) -> Array:
        """What is added for the key, (B, H, Dv)."""
        return self.fraction(t) * (self.v[:, :, t] - known)

    def step(self, state: Array, decay: Array, t: int) -> Array:
        """The state after token t."""
        decayed = state * decay[..., None]
        written = self.written(self.known(state, decayed, t), t)
        return self.kept(decayed + self.key(t)[..., None] * written[:, :, None])


class GatedDelta(Delta):
    """With decay."""

    methods: ClassVar[tuple[str, ...]] = ("gated_delta_rule",)


def _shared(reference: type[Delta], mistakes: tuple[type[Recurrent], ...]) -> None:
    """Declare mistakes of other recurrences as mistakes in this one, whose own steps they leave as they are."""
    for mistake in mistakes:
        type(mistake.__name__, (mistake, reference), {"name": mistake.name, "methods": reference.methods})


_shared(Delta, (
    gated.ReadBeforeUpdate, gated.ScaleForgotten, gated.ScaleOptionIgnored, gated.ScaleTwice, gated.InitialStateIgnored,
    gated.InitialStateTransposed, gated.StateInStorageDtype, gated.StateNotHandedOn, gated.LastChunkDropped,
))  # fmt: skip
_shared(GatedDelta, (
    gated.DecayForgotten, gated.DecayTwice, gated.LogGatesAsGates, gated.GateSignInverted, gated.SigmoidOfGates,
    gated.GateOfNextToken, gated.DecayOfFirstHead, gated.InitialStateNotDecayed, gated.DecayLostBetweenChunks,
    gated.DecayDoubledBetweenChunks,
))  # fmt: skip


class BetaForgotten(Delta):
    name = "beta-forgotten"
    explanation = "Values are replaced entirely, whatever beta says."
    citation = DELTA
    needs = "partly"

    def fraction(self, t: int) -> Array:
        return np.ones_like(super().fraction(t))


class BetaOnValueOnly(Delta):
    name = "beta-on-new-value-only"
    explanation = "beta weighs the new value, but the old one is removed entirely."
    citation = DELTA
    needs = "partly and earlier"

    def written(self, known: Array, t: int) -> Array:
        return self.fraction(t) * self.v[:, :, t] - known


class BetaOnRemovalOnly(Delta):
    name = "beta-on-old-value-only"
    explanation = "beta weighs what is removed, but the new value is added entirely."
    citation = DELTA
    needs = "partly"

    def written(self, known: Array, t: int) -> Array:
        return self.v[:, :, t] - self.fraction(t) * known


class BetaTwice(Delta):
    name = "beta-twice"
    explanation = "Key and value are both multiplied by beta."
    citation = WY
    needs = "partly"

    def fraction(self, t: int) -> Array:
        return super().fraction(t) ** 2


class BetaOfNextToken(Delta):
    name = "beta-of-neighbouring-token"
    explanation = "A token uses the beta of the token after it."
    citation = DELTA
    needs = "l > 1"

    def fraction(self, t: int) -> Array:
        return super().fraction((t + 1) % self.length)


class BetaOfFirstHead(Delta):
    name = "beta-of-first-head"
    explanation = "All heads replace as much as the first."
    citation = DELTA
    needs = "h > 1"

    def fraction(self, t: int) -> Array:
        fraction = super().fraction(t)
        return np.broadcast_to(fraction[:, :1], fraction.shape)


class BetaThroughSigmoid(Delta):
    name = "sigmoid-of-beta"
    explanation = "beta goes through a sigmoid, as if it were a raw score."
    citation = DELTA

    def fraction(self, t: int) -> Array:
        return 1 / (1 + np.exp(-super().fraction(t)))


class NothingRemoved(Delta):
    name = "old-value-not-removed"
    explanation = "Values are added as in linear attention: what the state held for the key stays."
    citation = DELTA
    needs = "earlier"

    def known(self, before: Array, decayed: Array, t: int) -> Array:
        return np.zeros_like(super().known(before, decayed, t))


class OldValueAdded(Delta):
    name = "old-value-added"
    explanation = "What the state held for the key is added instead of removed."
    citation = DELTA
    needs = "earlier"

    def written(self, known: Array, t: int) -> Array:
        return super().written(-known, t)


class StateReadFromTheOtherSide(Delta):
    name = "key-multiplied-from-the-other-side"
    explanation = "The old value of a key is taken as S k^T, over the value dimension, instead of k S."
    citation = DELTA
    needs = "d == e and d > 1 and earlier"

    def known(self, before: Array, decayed: Array, t: int) -> Array:
        return np.matmul(decayed, self.key(t)[..., None])[..., 0]


class KeysNormalised(Delta):
    name = "keys-normalised"
    explanation = "Keys are normalised to length 1 by the kernel; the method takes them as they come."
    citation = "flash-linear-attention, option use_qk_l2norm_in_kernel"
    needs = "lengths"

    def key(self, t: int) -> Array:
        key = super().key(t)
        return key / np.maximum(np.sqrt((key**2).sum(axis=-1, keepdims=True)), FLOOR)


class FinalStateOneShort(Delta):
    name = "final-state-without-last-token"
    explanation = "The state that is returned is the one before the last token."
    citation = DELTA
    needs = "l > 0"
    output = "state"

    def outputs(self) -> tuple[Array, ...]:
        out, _ = super().outputs()
        short = {name: x[:, :, :-1] if name in ("q", "k", "v", "g", "beta") else x for name, x in self.arguments.items()}
        return out, Delta(short, self.setting).outputs()[1]


class RemovedBeforeDecay(GatedDelta):
    name = "old-value-before-decay"
    explanation = "The old value is read from the state before it decayed, so that more is removed than is left."
    citation = GATED
    needs = "decays and earlier"

    def known(self, before: Array, decayed: Array, t: int) -> Array:
        return super().known(before, before, t)


class DecayAfterUpdate(GatedDelta):
    name = "gate-after-update"
    explanation = "The gate is applied to the state after the value of the token was written, so that decays too."
    citation = GATED
    needs = "decays"

    def step(self, state: Array, decay: Array, t: int) -> Array:
        return super().step(state, np.ones_like(decay), t) * decay[..., None]


class DecayOnRemovalOnly(GatedDelta):
    name = "decay-in-old-value-only"
    explanation = "The decay is in the old value that is removed, but the state itself does not decay."
    citation = GATED
    needs = "decays and earlier"

    def step(self, state: Array, decay: Array, t: int) -> Array:
        written = self.written(self.known(state, state * decay[..., None], t), t)
        return state + self.key(t)[..., None] * written[:, :, None]


class DiagonalInTriangle(Delta):
    name = "diagonal-in-triangle"
    explanation = "The triangular system of a chunk counts a token's product with itself: its value is divided by 1 + beta |k|^2."
    citation = WY

    def written(self, known: Array, t: int) -> Array:
        return super().written(known, t) / (1 + self.fraction(t) * (self.key(t) ** 2).sum(axis=-1, keepdims=True))


class ChunkedDelta(Chunked, Delta):
    """By chunks, whose first state is known to every token of them."""

    def step(self, state: Array, decay: Array, t: int) -> Array:
        """The state after token t."""
        if t % self.chunk == 0:
            self.entered = state
        self.entered = self.entered * decay[..., None]
        return super().step(state, decay, t)


class ChunkNotSolved(ChunkedDelta):
    name = "chunk-without-triangular-system"
    explanation = "Old values are read from the state that entered the chunk: what the chunk itself wrote is not replaced."
    citation = WY
    needs = "l > 1 and chunk > 1"
    methods = Delta.methods

    def known(self, before: Array, decayed: Array, t: int) -> Array:
        return super().known(before, self.entered, t)


class EnteredStateNotRead(ChunkedDelta):
    name = "entered-state-not-replaced"
    explanation = "Within a chunk values replace each other, but not what the entering state holds for their keys."
    citation = WY
    needs = "l > chunk or initial_state is not None"
    methods = Delta.methods

    def known(self, before: Array, decayed: Array, t: int) -> Array:
        return super().known(before, decayed - self.entered, t)
