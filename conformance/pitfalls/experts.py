"""Mistakes of layers of experts: whom an expert has room for, what is weighed, what is always on, and who passes a block by.

Shapes: T tokens, E experts, k of which a token chooses, B sequences, L length, D width, F inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["Depths", "GroupExperts", "Layer"]

SWITCH = "Fedus et al. 2021, section 2.2, arXiv:2101.03961"
SHARED = "Dai et al. 2024, eq. 9, arXiv:2401.06066"
DEPTHS = "Raposo et al. 2024, eq. 1, arXiv:2404.02258"


def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    tail = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1, tail) / (1 + tail)


class Layer(Steps):
    """The chosen experts of every token, weighed and added, and the shared one."""

    methods: ClassVar[tuple[str, ...]] = ("moe_layer",)
    citation: ClassVar[str] = SWITCH

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.hidden, self.indices, self.weights = (arguments[name] for name in ("hidden", "indices", "weights"))
        self.w_in, self.w_out, self.w_gate = arguments["w_in"], arguments["w_out"], arguments.get("w_gate")
        self.shared = tuple(arguments.get(f"shared_{name}") for name in ("in", "out", "gate"))
        self.capacity, self.activation = arguments.get("capacity"), arguments.get("activation") or "silu"
        self.priority = arguments.get("priority", "token")
        self.tokens, self.choices = self.indices.shape
        self.experts = len(self.w_in)

    def facts(self) -> dict[str, Any]:
        """Dimensions, options, and whether some assignment is dropped."""
        return {
            "l": self.tokens, "c": self.choices, "x": self.experts, "d": self.hidden.shape[1], "f": self.w_in.shape[2],
            "capacity": self.capacity, "priority": self.priority, "dtype": self.setting.dtype, "silu": self.activation == "silu",
            "shared": self.shared[0] is not None, "gated": self.w_gate is not None, "shared_gated": self.shared[2] is not None,
            "drops": lambda: not bool(Layer.kept(self).all()),
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.hidden.size > 0 and self.indices.size > 0 and super().applies()

    def act(self, x: Array) -> Array:
        """Within experts."""
        return np.maximum(x, 0) if self.activation == "relu" else silu(x)

    def expert(self, x: Array, w_in: Array, w_out: Array, w_gate: Array | None) -> Array:
        """What an expert makes of some rows."""
        inner = x @ w_in
        return (self.act(inner) if w_gate is None else self.act(x @ w_gate) * inner) @ w_out

    def made(self) -> Array:
        """(E, T, D)."""
        return self.expert(self.hidden[None], self.w_in, self.w_out, self.w_gate)

    def order(self) -> Array:
        """The place of every assignment (T, k) in the line for its expert, before it is known which line."""
        number = np.arange(self.indices.size)
        return number.reshape(self.indices.shape) if self.priority == "token" else number.reshape(self.indices.shape[::-1]).T

    def kept(self) -> Array:
        """Which assignments count, bool (T, k)."""
        if self.capacity is None:
            return np.ones(self.indices.shape, dtype=bool)
        experts, order = self.indices.ravel(), self.order().ravel()
        ahead = ((experts[None] == experts[:, None]) & (order[None] < order[:, None])).sum(axis=1)
        return (ahead < self.room()).reshape(self.indices.shape)

    def room(self) -> int:
        """Of every expert."""
        assert self.capacity is not None
        return self.capacity

    def weighed(self) -> Array:
        """(T, k), zeros for what is dropped."""
        return np.where(self.kept(), self.weights, 0)

    def always(self) -> Array:
        """What the shared expert adds."""
        shared_in, shared_out, shared_gate = self.shared
        if shared_in is None or shared_out is None:
            return self.dtype.type(0)
        return self.expert(self.hidden, shared_in, shared_out, shared_gate)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        chosen = self.made()[self.indices, np.arange(self.tokens)[:, None]]
        return (((self.weighed()[..., None] * chosen).sum(axis=1) + self.always()).astype(self.dtype),)


class CapacityOfAll(Layer):
    name = "capacity-of-whole-batch"
    explanation = "The capacity counts the assignments to all experts together, not to each."
    needs = "capacity is not None and x > 1 and l > 1"
    occasional = True

    def kept(self) -> Array:
        return self.order() < self.room()


class CapacityIgnored(Layer):
    name = "capacity-ignored"
    explanation = "Nothing is dropped."
    needs = "drops"
    occasional = True

    def kept(self) -> Array:
        return np.ones(self.indices.shape, dtype=bool)


class CapacityOneMore(Layer):
    name = "capacity-one-too-many"
    explanation = "An expert takes one assignment more than it has room for, as by counting places from 0 and comparing with <=."
    needs = "drops"
    occasional = True

    def room(self) -> int:
        return super().room() + 1


class CapacityOneLess(Layer):
    name = "capacity-one-too-few"
    explanation = "An expert takes one assignment fewer than it has room for."
    needs = "capacity is not None"
    occasional = True

    def room(self) -> int:
        return super().room() - 1


class LastKept(Layer):
    name = "last-tokens-kept"
    explanation = "Where an expert is full the earlier tokens are dropped, not the later ones."
    needs = "drops"
    occasional = True

    def order(self) -> Array:
        return -super().order()


class BestKept(Layer):
    name = "largest-weights-kept"
    explanation = "Where an expert is full the assignments of least weight are dropped (batch prioritised routing)."
    citation = "Riquelme et al. 2021, section 4.1, arXiv:2106.05974"
    needs = "drops"
    occasional = True

    def order(self) -> Array:
        order = np.empty(self.indices.size, dtype=np.int64)
        order[np.argsort(-self.weights.ravel(), kind="stable")] = np.arange(self.indices.size)
        return order.reshape(self.indices.shape)


class OtherPriority(Layer):
    name = "first-choices-first"
    explanation = "All first choices come before all second ones (GShard), where the order of tokens decides; or the other way round."
    citation = "Lepikhin et al. 2020, algorithm 1, arXiv:2006.16668"
    needs = "drops and c > 1"
    occasional = True

    def order(self) -> Array:
        number, shape = np.arange(self.indices.size), self.indices.shape
        return number.reshape(shape[::-1]).T if self.priority == "token" else number.reshape(shape)


class RenormalisedAfterDrops(Layer):
    name = "renormalised-after-drops"
    explanation = "The weights that are left are scaled up to the sum that they had before others were dropped."
    needs = "drops and c > 1"
    occasional = True

    def weighed(self) -> Array:
        weighed = super().weighed()
        left = weighed.sum(axis=1, keepdims=True)
        return np.where(left == 0, 0, weighed / np.where(left == 0, 1, left) * self.weights.sum(axis=1, keepdims=True))


class DroppedTokenKept(Layer):
    name = "dropped-token-passed-on"
    explanation = "A token all of whose assignments are dropped is returned as it is, as if the layer held the residual connection."
    needs = "drops"
    occasional = True

    def always(self) -> Array:
        return super().always() + np.where(self.kept().any(axis=1, keepdims=True), 0, self.hidden)


class SharedForgotten(Layer):
    name = "shared-expert-forgotten"
    explanation = "The shared expert is left out."
    citation = SHARED
    needs = "shared"
    occasional = True

    def always(self) -> Array:
        return self.dtype.type(0)


class SharedWeighed(Layer):
    name = "shared-expert-gated"
    explanation = "The shared expert is multiplied by the sum of the token's weights; it is always on."
    citation = SHARED
    needs = "shared"
    occasional = True

    def always(self) -> Array:
        return super().always() * self.weights.sum(axis=1, keepdims=True)


class SharedDropped(Layer):
    name = "shared-expert-of-kept-tokens"
    explanation = "The shared expert sees only tokens that were not dropped."
    citation = SHARED
    needs = "shared and drops"
    occasional = True

    def always(self) -> Array:
        return np.where(self.kept().any(axis=1, keepdims=True), super().always(), 0)


class WeightsForgotten(Layer):
    name = "weights-forgotten"
    explanation = "What the chosen experts return is added without their weights."
    occasional = True

    def weighed(self) -> Array:
        return self.kept().astype(self.dtype)


class FirstChoiceOnly(Layer):
    name = "first-choice-only"
    explanation = "Only the first choice of every token counts."
    needs = "c > 1"
    occasional = True

    def weighed(self) -> Array:
        return np.where(np.arange(self.choices) == 0, super().weighed(), 0)


class WeightsOnInputs(Layer):
    name = "weights-on-inputs"
    explanation = "Tokens are weighed before their experts see them; the experts are not linear."
    occasional = True

    def outputs(self) -> tuple[Array, ...]:
        out = np.zeros_like(self.hidden)
        for place in range(self.choices):
            rows = self.hidden * self.weights[:, place, None]
            made = self.expert(rows[None], self.w_in, self.w_out, self.w_gate)[self.indices[:, place], np.arange(self.tokens)]
            out = out + np.where(self.kept()[:, place, None], made, 0)
        return ((out + self.always()).astype(self.dtype),)


class GateExchanged(Layer):
    name = "gate-and-input-exchanged"
    explanation = "The activation is applied to x w_in, and x w_gate only multiplies."
    needs = "gated"
    occasional = True

    def expert(self, x: Array, w_in: Array, w_out: Array, w_gate: Array | None) -> Array:
        return super().expert(x, w_in, w_out, None) if w_gate is None else super().expert(x, w_gate, w_out, w_in)


class GateIgnored(Layer):
    name = "gate-ignored"
    explanation = "w_gate is not read: experts of two matrices."
    needs = "gated or shared_gated"
    occasional = True

    def expert(self, x: Array, w_in: Array, w_out: Array, w_gate: Array | None) -> Array:
        return super().expert(x, w_in, w_out, None)


class SigmoidOnly(Layer):
    name = "sigmoid-for-silu"
    explanation = "The activation is a sigmoid (a gated linear unit) instead of x sigmoid(x)."
    needs = "silu"
    occasional = True

    def act(self, x: Array) -> Array:
        return 1 / (1 + np.exp(-x))


class NextExpert(Layer):
    name = "experts-off-by-one"
    explanation = "Expert i + 1 answers for expert i."
    needs = "x > 1"
    occasional = True

    def made(self) -> Array:
        return np.roll(super().made(), -1, axis=0)


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


class GroupExperts(Steps):
    """Grouped-query attention, then the expert of every group."""

    methods: ClassVar[tuple[str, ...]] = ("grouped_query_attention_shared_experts",)
    citation: ClassVar[str] = "Ainslie et al. 2023, arXiv:2305.13245; " + SHARED

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.q, self.k, self.v, self.w_in, self.w_out = (arguments[name] for name in ("q", "k", "v", "w_in", "w_out"))
        self.causal, self.scale = bool(arguments.get("causal")), arguments.get("scale")
        self.heads, self.groups = self.q.shape[1], self.k.shape[1]

    def facts(self) -> dict[str, Any]:
        """Dimensions and options."""
        return {
            "b": len(self.q), "h": self.heads, "g": self.groups, "l": self.q.shape[2], "s": self.k.shape[2], "d": self.q.shape[3],
            "e": self.v.shape[3], "f": self.w_in.shape[2], "causal": self.causal, "scale": self.scale, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.q.size > 0 and self.v.size > 0 and super().applies()

    def kv_heads(self) -> Array:
        """Which key/value head a query head reads."""
        return np.arange(self.heads) // (self.heads // self.groups)

    def experts(self) -> Array:
        """Which expert a query head goes through."""
        return np.arange(self.heads) // (self.heads // self.groups)

    def diagonal(self) -> int:
        """Of the last key that the first query sees."""
        return self.k.shape[2] - self.q.shape[2]

    def attended(self) -> Array:
        """(B, Hq, Lq, Dv)."""
        k, v = self.k[:, self.kv_heads()], self.v[:, self.kv_heads()]
        scale = self.q.shape[3] ** -0.5 if self.scale is None else self.scale
        logits = self.q @ k.swapaxes(2, 3) * self.dtype.type(scale)
        if self.causal:
            logits = np.where(np.tri(logits.shape[2], logits.shape[3], self.diagonal(), dtype=bool), logits, -np.inf)
        largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0))
        total = weights.sum(axis=-1, keepdims=True)
        return weights @ v / np.where(total == 0, 1, total)

    def expert(self, x: Array) -> Array:
        """What the experts make of every head."""
        return silu(x @ self.w_in[self.experts()]) @ self.w_out[self.experts()]

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        attended = self.attended()
        return ((attended + self.expert(attended)).astype(self.dtype),)


class ExpertsTiled(GroupExperts):
    name = "expert-of-another-group"
    explanation = "Query head h goes through expert h % Hkv, as by tiling the experts instead of repeating each."
    needs = "g > 1 and h != g"
    occasional = True

    def experts(self) -> Array:
        return np.arange(self.heads) % self.groups


class FirstExpert(GroupExperts):
    name = "first-expert-for-all"
    explanation = "All heads go through the first group's expert."
    needs = "g > 1"
    occasional = True

    def experts(self) -> Array:
        return np.zeros(self.heads, dtype=np.int64)


class KeysTiled(GroupExperts):
    name = "kv-heads-tiled"
    explanation = "Query head h reads key/value head h % Hkv, as `repeat` for `repeat_interleave` does."
    needs = "g > 1 and h != g"
    occasional = True

    def kv_heads(self) -> Array:
        return np.arange(self.heads) % self.groups


class BothTiled(KeysTiled):
    name = "groups-interleaved"
    explanation = "Query head h belongs to group h % Hkv, for keys, values and experts alike."
    needs = "g > 1 and h != g"
    occasional = True

    def experts(self) -> Array:
        return np.arange(self.heads) % self.groups


class NoResidual(GroupExperts):
    name = "attention-not-added"
    explanation = "Only what the expert makes is returned, without the attention itself."
    occasional = True

    def outputs(self) -> tuple[Array, ...]:
        return (self.expert(self.attended()).astype(self.dtype),)


class NoExpert(GroupExperts):
    name = "expert-forgotten"
    explanation = "The attention alone is returned."
    occasional = True

    def expert(self, x: Array) -> Array:
        return np.zeros_like(x)


class ExpertOfMean(GroupExperts):
    name = "expert-of-group-mean"
    explanation = "The expert sees the mean of its group's heads, and all of them get the same from it."
    needs = "h != g"
    occasional = True

    def expert(self, x: Array) -> Array:
        batch, heads, length, width = x.shape
        mean = x.reshape(batch, self.groups, -1, length, width).mean(axis=2)
        return super().expert(np.repeat(mean, heads // self.groups, axis=1))


class TopLeft(GroupExperts):
    name = "causal-top-left"
    explanation = "The causal mask is aligned with the first key instead of the last."
    needs = "causal and l != s"
    occasional = True

    def diagonal(self) -> int:
        return 0
