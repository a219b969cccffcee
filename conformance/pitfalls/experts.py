"""Mistakes of layers of experts: whom an expert has room for, what is weighed, and what is always on.

Shapes: T tokens, E experts, k of which a token chooses, D width, F inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps

__all__ = ["Layer", "silu"]

SWITCH = "Fedus et al. 2021, section 2.2, arXiv:2101.03961"
SHARED = "Dai et al. 2024, eq. 9, arXiv:2401.06066"


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
