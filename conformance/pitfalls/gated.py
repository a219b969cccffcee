"""Mistakes of attention with decay: gates, the order of update and reading, the edges of chunks, the state that comes in."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

GLA = "Yang et al. 2023, eq. 3-4, arXiv:2312.06635"
CHUNKS = "Yang et al. 2023, section 4.2, arXiv:2312.06635"


class Recurrent(Steps):
    """The state, one token after the other, in the working dtype.

    Shapes: B batch, H heads, L length, D query/key width, Dv value width.
    """

    methods: ClassVar[tuple[str, ...]] = ("gated_linear_attention", "retention")

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        self.arguments, self.setting, self.dtype, self.conventions = arguments, setting, setting.working, {}
        self.q, self.k, self.v = (arguments[name] for name in "qkv")
        self.scale, self.initial = arguments.get("scale"), arguments.get("initial_state")
        self.batch, self.heads, self.length, self.width = self.q.shape
        self.chunk = setting.tunables.get("chunk_size", setting.tunables.get("block_k", 0))
        self.retains = "decay" in arguments

    def facts(self) -> dict[str, Any]:
        """Sizes, and what is given."""
        return {
            "b": self.batch, "h": self.heads, "l": self.length, "d": self.width, "e": self.v.shape[3], "scale": self.scale,
            "initial_state": True if self.initial is not None else None, "chunk": self.chunk, "factor": Recurrent.factor(self),
            "retains": self.retains, "half": self.setting.half, "narrow_state": self.setting.narrow_state,
            "decays": lambda: bool((self.right_gates() < -1e-3).any()),
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and self.v.size > 0 and super().applies()

    def factor(self) -> float:
        """What outputs are multiplied by."""
        return 1 / sqrt(self.width) if self.scale is None else float(self.scale)

    def right_gates(self) -> Array:
        """Logarithms of the decays, (B, H, L, D or 1)."""
        if self.retains:
            return np.broadcast_to(np.log(self.arguments["decay"])[None, :, None, None], (*self.q.shape[:3], 1))
        return self.arguments["g"]

    def gates(self) -> Array:
        """The logarithms that are used."""
        return self.right_gates()

    def decays(self) -> Array:
        """What the state is multiplied by at each token."""
        return np.exp(self.gates())

    def first_state(self) -> Array:
        """The state before the first token."""
        return np.zeros((self.batch, self.heads, self.width, self.v.shape[3]), self.dtype) if self.initial is None else self.initial

    def key(self, t: int) -> Array:
        """The key that token t adds, (B, H, D)."""
        return self.k[:, :, t]

    def step(self, state: Array, decay: Array, t: int) -> Array:
        """The state after token t."""
        return self.kept(state * decay[..., None] + self.key(t)[..., None] * self.v[:, :, t, None])

    def kept(self, state: Array) -> Array:
        """The state as it is stored."""
        return state

    def read(self, before: Array, after: Array, t: int) -> Array:
        """What the query of token t reads, (B, H, Dv)."""
        return np.matmul(self.q[:, :, t, None], after)[:, :, 0]

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        state, decays, out = self.first_state(), self.decays(), np.zeros((*self.q.shape[:3], self.v.shape[3]), self.dtype)
        for t in range(self.length):
            after = self.step(state, decays[:, :, t], t)
            out[:, :, t] = self.read(state, after, t) * self.dtype.type(self.factor())
            state = after
        return out, state


class GateAfterUpdate(Recurrent):
    name = "gate-after-update"
    explanation = "The gate is applied to the state after the key of the token was added, so that decays too."
    citation = GLA
    needs = "decays"

    def step(self, state: Array, decay: Array, t: int) -> Array:
        return (state + self.key(t)[..., None] * self.v[:, :, t, None]) * decay[..., None]


class ReadBeforeUpdate(Recurrent):
    name = "read-before-update"
    explanation = "The query reads the state before its own token was added."
    citation = GLA

    def read(self, before: Array, after: Array, t: int) -> Array:
        return super().read(before, before, t)


class DecayForgotten(Recurrent):
    name = "decay-forgotten"
    explanation = "The state does not decay."
    citation = GLA
    needs = "decays and (l > 1 or initial_state is not None)"

    def decays(self) -> Array:
        return np.ones_like(super().decays())


class DecayTwice(Recurrent):
    name = "decay-twice"
    explanation = "The state decays twice at each token."
    citation = GLA
    needs = "decays and (l > 1 or initial_state is not None)"

    def decays(self) -> Array:
        return super().decays() ** 2


class LogGatesAsGates(Recurrent):
    name = "log-gates-taken-as-gates"
    explanation = "The logarithms of the gates are multiplied with the state instead of their exponentials."
    citation = GLA
    methods = ("gated_linear_attention",)
    needs = "l > 1 or initial_state is not None"

    def decays(self) -> Array:
        return self.gates()


class GateSignInverted(Recurrent):
    name = "gate-sign-inverted"
    explanation = "The state grows by exp(-g) instead of decaying by exp(g)."
    citation = GLA
    needs = "decays and (l > 1 or initial_state is not None)"

    def gates(self) -> Array:
        return -super().gates()


class SigmoidOfGates(Recurrent):
    name = "sigmoid-of-log-gates"
    explanation = "The log gates go through a sigmoid, as if they were raw scores."
    citation = GLA
    methods = ("gated_linear_attention",)
    needs = "l > 1 or initial_state is not None"

    def decays(self) -> Array:
        return 1 / (1 + np.exp(-self.gates()))


class GateOfNextToken(Recurrent):
    name = "gate-of-neighbouring-token"
    explanation = "A token uses the gate of the token after it."
    citation = GLA
    methods = ("gated_linear_attention",)
    needs = "l > 1"

    def gates(self) -> Array:
        return np.roll(super().gates(), -1, axis=2)


class GateOfFirstDimension(Recurrent):
    name = "one-gate-for-all-dimensions"
    explanation = "All key dimensions decay by the gate of the first."
    citation = GLA
    methods = ("gated_linear_attention",)
    needs = "d > 1 and (l > 1 or initial_state is not None)"

    def gates(self) -> Array:
        return np.broadcast_to(super().gates()[..., :1], self.q.shape)


class DecayOfFirstHead(Recurrent):
    name = "decay-of-first-head"
    explanation = "All heads decay like the first."
    citation = "Sun et al. 2023, eq. 8, arXiv:2307.08621"
    needs = "h > 1 and (l > 1 or initial_state is not None)"

    def gates(self) -> Array:
        gates = super().gates()
        return np.broadcast_to(gates[:, :1], gates.shape)


class ScaleForgotten(Recurrent):
    name = "scale-forgotten"
    explanation = "The outputs are not scaled."
    citation = GLA
    needs = "factor != 1"

    def factor(self) -> float:
        return 1.0


class ScaleOptionIgnored(Recurrent):
    name = "scale-option-ignored"
    explanation = "The option `scale` is dropped: the outputs are scaled by 1/sqrt(D)."
    citation = GLA
    needs = "scale is not None"

    def factor(self) -> float:
        return 1 / sqrt(self.width)


class ScaleTwice(Recurrent):
    name = "scale-twice"
    explanation = "The scale is applied to the queries and to the outputs."
    citation = GLA
    needs = "factor != 1 and factor != 0"

    def factor(self) -> float:
        return super().factor() ** 2


class InitialStateIgnored(Recurrent):
    name = "initial-state-ignored"
    explanation = "The state that is given is not read."
    citation = GLA
    needs = "initial_state is not None"

    def first_state(self) -> Array:
        return np.zeros_like(super().first_state())


class InitialStateNotDecayed(Recurrent):
    name = "initial-state-not-decayed"
    explanation = "The gate of the first token is not applied to the state that is given."
    citation = GLA
    needs = "initial_state is not None and decays"

    def decays(self) -> Array:
        decays = super().decays().copy()
        decays[:, :, :1] = 1
        return decays


class InitialStateTransposed(Recurrent):
    name = "initial-state-transposed"
    explanation = "The state that is given is read as (Dv, D)."
    citation = "flash-linear-attention#233"
    needs = "initial_state is not None and d == e and d > 1"

    def first_state(self) -> Array:
        return super().first_state().swapaxes(-1, -2)


class AnticausalTail(Recurrent):
    name = "next-token-visible"
    explanation = "A query reads the key of the token after it as well."
    citation = GLA
    needs = "l > 1"

    def read(self, before: Array, after: Array, t: int) -> Array:
        later = min(t + 1, self.length - 1)
        ahead = self.key(later)[..., None] * self.v[:, :, later, None] if later > t else 0.0
        return super().read(before, after + ahead, t)


class Normalised(Recurrent):
    name = "output-normalised"
    explanation = "The outputs are divided by the sum of the weights; here they are not."
    citation = "Katharopoulos et al. 2020, eq. 5, arXiv:2006.16236"
    needs = "l > 1"

    def outputs(self) -> tuple[Array, ...]:
        out, state = super().outputs()
        ones = type(self).unmistaken()({**self.arguments, "v": np.ones_like(self.v[..., :1]), "initial_state": None}, self.setting)
        return out / np.where((total := ones.outputs()[0]) == 0, 1, total), state


class StateInStorageDtype(Recurrent):
    name = "state-in-storage-dtype"
    explanation = "The state is rounded to the storage dtype at every token, and loses what is small against it."
    citation = CHUNKS
    needs = "half and l > 16 and not narrow_state"
    output = "state"

    def kept(self, state: Array) -> Array:
        return self.stored(state)


class Chunked(Recurrent):
    """The same by chunks: tokens of a chunk are known by their place in it."""

    variants: ClassVar[tuple[int, ...]] = (16, 32, 64)

    def applies(self) -> bool:
        """Whether the mistake can show on this call: never where the chunk is unknown."""
        return self.chunk > 0 and super().applies()

    def starts(self) -> Array:
        """Which tokens begin a chunk but the first, (L, 1)."""
        tokens = np.arange(self.length)
        return ((tokens % self.chunk == 0) & (tokens > 0))[:, None]


class DecayLostBetweenChunks(Chunked):
    name = "decay-lost-between-chunks"
    explanation = "The state that a chunk hands on does not decay at the first token of the next."
    citation = CHUNKS
    needs = "decays and l > chunk"

    def gates(self) -> Array:
        return np.where(self.starts(), 0.0, super().gates())


class DecayDoubledBetweenChunks(Chunked):
    name = "decay-doubled-between-chunks"
    explanation = "The state that a chunk hands on decays twice at the first token of the next."
    citation = CHUNKS
    needs = "decays and l > chunk"

    def gates(self) -> Array:
        return np.where(self.starts(), 2, 1) * super().gates()


class StateNotHandedOn(Chunked):
    name = "state-not-handed-on"
    explanation = "Every chunk begins with an empty state."
    citation = CHUNKS
    needs = "l > chunk"

    def decays(self) -> Array:
        return np.where(self.starts(), 0.0, super().decays())


class LastChunkDropped(Chunked):
    name = "last-chunk-dropped"
    explanation = "The tokens of a last, shorter chunk are not computed."
    citation = CHUNKS
    needs = "l % chunk != 0"

    def outputs(self) -> tuple[Array, ...]:
        out, state = super().outputs()
        whole = np.arange(self.length)[:, None] < self.length // self.chunk * self.chunk
        return np.where(whole, out, 0.0), state


class DivisionByCumulativeDecay(Chunked):
    name = "keys-divided-by-cumulative-decay"
    explanation = "Keys are multiplied by exp(-G) of the cumulative gates of their chunk, which overflows when the decay is strong."
    citation = CHUNKS
    methods = ("gated_linear_attention",)
    occasional = True
    needs = "decays and l > 1"

    def outputs(self) -> tuple[Array, ...]:
        out, state, gates = np.zeros((*self.q.shape[:3], self.v.shape[3]), self.dtype), self.first_state(), self.gates()
        for start in range(0, self.length, self.chunk):
            chunk = slice(start, start + self.chunk)
            total = np.cumsum(gates[:, :, chunk], axis=2)
            queries, keys, v = self.q[:, :, chunk] * np.exp(total), self.k[:, :, chunk] * np.exp(-total), self.v[:, :, chunk]
            weights = np.where(np.tri(v.shape[2], dtype=bool), queries @ keys.swapaxes(-1, -2), 0.0)
            out[:, :, chunk] = (weights @ v + queries @ state) * self.dtype.type(self.factor())
            last = np.exp(total[:, :, -1])[..., None]
            state = last * (state + keys.swapaxes(-1, -2) @ v)
        return out, state
