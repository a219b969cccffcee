"""Mistakes of attention whose keys go round a ring of processes: who reads whose keys, by which position, and how parts are merged.

Shapes: B batch, Hq query heads, Hkv key/value heads, L length, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting, heads, logits, masking, softmax, tiled  # noqa: F401  (they declare the dense mistakes)
from conformance.pitfalls.dense import Array, Reference, declare_dense
from oracle.parallel import token_shares

__all__ = ["DENSE_MISTAKES", "RingSteps"]

CITATION = "Liu et al. 2023, section 3, arXiv:2310.01889"
ZIGZAG = "Brandon et al. 2023, section 3, arXiv:2311.09431"

DENSE_MISTAKES = (
    "scale-forgotten", "scale-twice", "scale-option-ignored", "causal-ignored", "unstable-softmax", "output-not-normalised",
    "heads-interleaved", "heads-first-kv-head",
)  # fmt: skip
TILED_MISTAKES = ("tail-tile-dropped", "stale-accumulator", "sum-not-rescaled", "rescale-inverted")


class RingSteps(Reference):
    """Attention in as many parts as there are processes, merged by their logsumexps.

    Step t of process r is with the keys of process r - t. Everything that concerns steps is an array over (L, L): which process a query
    belongs to, which one a key, and so in which step they meet.

    Attributes:
        ranks: (L,), the process that holds each token.
        world: how many processes there are; 0 where the case does not tell.
    """

    methods: ClassVar[tuple[str, ...]] = ("ring_attention",)
    citation: ClassVar[str] = CITATION

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.world, self.zigzag = setting.tunables.get("world_size", 0), bool(setting.tunables.get("zigzag", 0))
        self.shares = token_shares(self.keys, self.world or 1, self.zigzag)
        self.ranks = np.zeros(self.keys, dtype=np.int64)
        for rank, share in enumerate(self.shares):
            self.ranks[share] = rank

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and how the tokens are spread."""
        return {**super().facts(), "world": self.world, "zigzag": self.zigzag, "uneven": self.uneven()}

    def uneven(self) -> bool:
        """Whether the processes hold different numbers of tokens."""
        return len({len(share) for share in self.shares}) > 1

    def applies(self) -> bool:
        """Whether the mistake can show on this call: some need a number of processes, which not every implementation tells."""
        return self.keys > 0 and super().applies()

    def steps(self) -> Array:
        """In which step a query meets a key, (L, L)."""
        return (self.ranks[:, None] - self.ranks[None, :]) % max(self.world, 1)

    def places(self) -> Array:
        """Which place a token has on its process, (L,)."""
        places = np.zeros(self.keys, dtype=np.int64)
        for share in self.shares:
            places[share] = np.arange(len(share))
        return places

    def sources(self) -> Array:
        """Which token's key and value a query reads in place of each, (L, L); -1 for none."""
        return np.broadcast_to(np.arange(self.keys), (self.keys, self.keys))

    def parts(self) -> tuple[Array, Array]:
        """Output and logsumexp of each process's queries over the keys of each step, (W, B, H, L, Dv) and (W, B, H, L, 1)."""
        scores, steps = self.scores(), self.steps()
        outs, lses = [], []
        for step in range(max(self.world, 1)):
            own = np.where(steps == step, scores, -np.inf)
            shift = self.shift(self.maximum(own, self.sink()))
            weights = self.exponentials(own, shift)
            total = self.total(weights, self.sink(), shift)
            outs.append(self.normalised(self.gathered(weights), total))
            lses.append(self.lse(total, shift))
        return np.stack(outs), np.stack(lses)

    def merged(self, outs: Array, lses: Array) -> Array:
        """All parts together, (B, H, L, Dv)."""
        highest = lses.max(axis=0)
        weights = np.exp(lses - np.where(np.isneginf(highest), 0.0, highest))
        total = weights.sum(axis=0)
        return (weights * outs).sum(axis=0) / np.where(total == 0, 1.0, total)

    def attended(self) -> Array:
        """(B, H, L, Dv)."""
        return self.merged(*self.parts())

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return (self.attended(),)


class PlainRing(Reference):
    """The same without a ring: for mistakes that do not depend on it."""

    methods: ClassVar[tuple[str, ...]] = ("ring_attention",)


declare_dense(PlainRing, "ring_attention", DENSE_MISTAKES + TILED_MISTAKES)


class LocalCausality(RingSteps):
    name = "causal-by-place-on-process"
    explanation = "In every step the causal mask compares places on the two processes, as if both held the same tokens."
    needs = "causal and world > 1"

    def within_causal(self, offsets: Array) -> Array:
        places = self.places()
        return places[None, :] <= places[:, None]


class LaterStepsUnmasked(RingSteps):
    name = "causal-in-own-step-only"
    explanation = "The causal mask is applied to a process's own keys only; those that come from others are read whole, later tokens too."
    needs = "causal and world > 1"

    def within_causal(self, offsets: Array) -> Array:
        return (offsets <= 0) | (self.steps() != 0)


class SkippedByRank(RingSteps):
    name = "zigzag-skipped-as-contiguous"
    explanation = "Steps with keys of later processes are skipped, as is right where each process holds one chunk: in zigzag keys are lost."
    citation = ZIGZAG
    needs = "causal and world > 1 and zigzag"

    def within_causal(self, offsets: Array) -> Array:
        return (offsets <= 0) & (self.ranks[None, :] <= self.ranks[:, None])


class WrongWayRound(RingSteps):
    name = "ring-turns-the-other-way"
    explanation = "The keys come from the next process but are masked as those of the one before, or the other way round."
    needs = "causal and world > 2"

    def within_causal(self, offsets: Array) -> Array:
        positions = np.arange(self.keys)
        taken = positions.copy()
        taken_for = np.empty((self.keys, self.keys), dtype=np.int64)
        places = self.places()
        for rank in range(self.world):
            for other, share in enumerate(self.shares):
                mistaken = self.shares[(2 * rank - other) % self.world]
                if len(mistaken):
                    taken[share] = mistaken[np.minimum(places[share], len(mistaken) - 1)]
            taken_for[self.ranks == rank] = taken
        return taken_for <= positions[:, None]


class ShardsOfEqualLength(RingSteps):
    name = "positions-by-equal-shares"
    explanation = "Positions are rank times the process's own number of tokens, which is right only where all hold as many."
    needs = "causal and world > 2 and uneven and not zigzag"
    occasional = True

    def within_causal(self, offsets: Array) -> Array:
        lengths = np.array([len(share) for share in self.shares])
        positions = self.places() + self.ranks * lengths[self.ranks]
        return positions[None, :] <= positions[:, None]


class LastStepMissing(RingSteps):
    name = "last-ring-step-missing"
    explanation = "The keys go round one step short: each process never meets those of the next."
    needs = "world > 1"

    def within_band(self) -> Array:
        return super().within_band() & (self.steps() != self.world - 1)


class OwnKeysOnly(RingSteps):
    name = "own-keys-only"
    explanation = "Each process attends to the keys that it holds, and to no others."
    needs = "world > 1"

    def within_band(self) -> Array:
        return super().within_band() & (self.steps() == 0)


class OwnKeysTwice(RingSteps):
    name = "own-keys-counted-twice"
    explanation = "The ring takes one step too many: a process meets its own keys again, which then count twice."
    needs = "world > 1"

    def merged(self, outs: Array, lses: Array) -> Array:
        return super().merged(np.concatenate([outs, outs[:1]]), np.concatenate([lses, lses[:1]]))


class ValuesStay(RingSteps):
    name = "values-not-sent"
    explanation = "The keys go round, the values stay: weights of one process's keys meet another's values."
    needs = "world > 1 and not uneven"

    def gathered(self, weights: Array) -> Array:
        values, places = self.read_values(), self.places()
        out = np.zeros((*self.shape[:3], values.shape[3]), self.dtype)
        for rank, share in enumerate(self.shares):
            own = np.array(self.shares[rank])
            out[:, :, share] = weights[:, :, share] @ values[:, :, own[places]]
        return out


class PartsAveraged(RingSteps):
    name = "parts-averaged"
    explanation = "The parts are averaged over the processes, as if each held the same share of the weight."
    citation = "zhuzilin/ring-flash-attention#20"
    needs = "world > 1"

    def merged(self, outs: Array, lses: Array) -> Array:
        return outs.mean(axis=0)


class PartsAddedUp(RingSteps):
    name = "parts-added-up"
    explanation = "The normalised outputs of the parts are added up, as by an all-reduce."
    needs = "world > 1"

    def merged(self, outs: Array, lses: Array) -> Array:
        return outs.sum(axis=0)


class MergedInBaseTwo(RingSteps):
    name = "parts-merged-in-base-2"
    explanation = "Natural logsumexps are merged with powers of two: large parts get too little weight."
    citation = "sglang#40903"
    needs = "world > 1"

    def merged(self, outs: Array, lses: Array) -> Array:
        return super().merged(outs, lses * self.dtype.type(np.log(2)))


class LastPartOnly(RingSteps):
    name = "last-part-only"
    explanation = "Each step overwrites the one before: the last part is returned."
    needs = "world > 1"

    def merged(self, outs: Array, lses: Array) -> Array:
        return outs[-1]


class EmptyPartsNan(RingSteps):
    name = "empty-part-merge-nan"
    explanation = "A part without any key that a query may read has the logsumexp -inf, and (-inf) - (-inf) makes the result NaN."
    citation = "flash-attention commit 26d7d92f"
    needs = "world > 1"
    occasional = True

    def merged(self, outs: Array, lses: Array) -> Array:
        out, running = outs[-1], lses[-1]
        for part, lse in zip(outs[-2::-1], lses[-2::-1], strict=True):
            highest = np.maximum(running, lse)
            old, new = np.exp(running - highest), np.exp(lse - highest)
            out, running = (old * out + new * part) / (old + new), highest + np.log(old + new)
        return out


class EmptyPartsZero(RingSteps):
    name = "empty-part-lse-zero"
    explanation = "A part without any key that a query may read has the logsumexp 0 instead of -inf: its zeros get weight."
    citation = "flashinfer#440"
    needs = "world > 1"
    occasional = True

    def merged(self, outs: Array, lses: Array) -> Array:
        return super().merged(outs, np.where(np.isneginf(lses), 0.0, lses))


class ZigzagNotUndone(RingSteps):
    name = "zigzag-positions-ignored"
    explanation = "Tokens in zigzag are masked as if each process held consecutive ones."
    citation = ZIGZAG
    needs = "causal and world > 1 and zigzag"

    def within_causal(self, offsets: Array) -> Array:
        mistaken = np.empty(self.keys, dtype=np.int64)
        mistaken[np.concatenate(self.shares)] = np.arange(self.keys)
        return mistaken[None, :] <= mistaken[:, None]
