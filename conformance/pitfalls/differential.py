"""Differential attention in small steps, and the mistakes in how its two maps are put together.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D query/key width, Dv value width.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle.formats import FORMATS

__all__ = ["CITATION", "FIRST", "SECOND", "SOFTMAX", "Differential"]

CITATION = "Ye et al. 2024, eq. 1, arXiv:2410.05258"
SOFTMAX = "Vaswani et al. 2017, eq. 1, arXiv:1706.03762"
FIRST, SECOND = 0, 1


class Differential(Steps):
    """Differential attention, as the specification means it."""

    methods = ("differential_attention",)

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.queries, self.keys = (arguments["q1"], arguments["q2"]), (arguments["k1"], arguments["k2"])
        second = arguments.get("v2")
        self.values = (arguments["v"], arguments["v"] if second is None else second)
        self.scale, self.lam, self.lam_init = (arguments.get(name) for name in ("scale", "lam", "lam_init"))
        self.causal, self.eps = arguments.get("causal", False), arguments.get("eps", 1e-5)
        self.batch, self.heads, self.rows, self.width = self.queries[0].shape
        self.groups, self.columns = self.keys[0].shape[1:3]

    def facts(self) -> dict[str, Any]:
        """Dimensions and options by name, and what follows from them."""
        return {
            "b": self.batch, "h": self.heads, "g": self.groups, "l": self.rows, "s": self.columns, "d": self.width,
            "e": self.values[0].shape[3], "lam": self.lam, "lam_init": self.lam_init, "scale": self.scale, "causal": self.causal,
            "eps": self.eps, "v2": self.arguments.get("v2"), "factor": Differential.factor(self, FIRST),
            "hidden": lambda: not Differential.allowed(self, FIRST).all(), "dtype": self.setting.dtype, **self.conventions,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.queries[0].size > 0 and self.values[0].size > 0 and super().applies()

    def lost(self) -> bool:
        """Whether the logits are so large that their own rounding decides a softmax."""
        unit = FORMATS[self.dtype.name].unit_roundoff
        largest = max(np.abs(q).max(initial=0.0) * np.abs(k).max(initial=0.0) for q, k in zip(self.queries, self.keys, strict=True))
        return bool(largest * self.width * abs(Differential.factor(self, FIRST)) * unit > 0.05)

    # The maps; `which` is FIRST or SECOND.

    def factor(self, which: int) -> float:
        """What the products of a map are multiplied by."""
        return 1 / sqrt(self.width) if self.scale is None else float(self.scale)

    def kv_heads(self, which: int) -> Array:
        """Which key/value head each query head reads, (Hq,)."""
        return np.arange(self.heads) // (self.heads // self.groups)

    def read_queries(self, which: int) -> Array:
        """(B, Hq, Lq, D)."""
        return self.queries[which]

    def read_keys(self, which: int) -> Array:
        """The keys as the query heads read them, (B, Hq, Lk, D)."""
        return self.keys[which][:, self.kv_heads(which)]

    def read_values(self, which: int) -> Array:
        """The values as the query heads read them, (B, Hq, Lk, Dv)."""
        return self.values[which][:, self.kv_heads(which)]

    def allowed(self, which: int) -> Array:
        """Which keys a query may read, (Lq, Lk)."""
        start = self.columns - self.rows if self.conventions["causal_alignment"] == "bottom-right" else 0
        ahead = np.arange(self.columns) - np.arange(self.rows)[:, None] - start
        return (ahead <= 0) | (not self.causal)

    def logits(self, which: int) -> Array:
        """Scaled, not masked, (B, Hq, Lq, Lk)."""
        return self.read_queries(which) @ self.read_keys(which).swapaxes(2, 3) * self.dtype.type(self.factor(which))

    def scores(self, which: int) -> Array:
        """What the softmax of a map sees."""
        return np.where(self.allowed(which), self.logits(which), -np.inf)

    def maximum(self, which: int) -> Array:
        """What is subtracted from the scores."""
        largest = self.scores(which).max(axis=-1, keepdims=True, initial=-np.inf)
        return np.where(np.isfinite(largest), largest, 0.0)

    def weights(self, which: int) -> Array:
        """Normalised, (B, Hq, Lq, Lk)."""
        exponentials = np.exp(self.scores(which) - self.maximum(which))
        total = exponentials.sum(axis=-1, keepdims=True)
        return exponentials / np.where(total == 0, 1, total)

    def result(self, which: int) -> Array:
        """One of the two attentions, (B, Hq, Lq, Dv)."""
        return self.weights(which) @ self.read_values(which)

    # Their difference.

    def part(self) -> float:
        """How much of the second attention is taken away."""
        return float(self.lam or 0.0)

    def combined(self) -> Array:
        """The difference."""
        return self.result(FIRST) - self.dtype.type(self.part()) * self.result(SECOND)

    def mean_square(self, out: Array) -> Array:
        """Of the rows that the head norm divides by their root."""
        return (out * out).mean(axis=-1, keepdims=True)

    def divisor(self, out: Array) -> Array:
        """What the head norm divides by."""
        return np.sqrt(self.mean_square(out) + self.dtype.type(self.eps))

    def gain(self) -> float:
        """What a normalised row is multiplied by."""
        return 1 - float(self.lam_init or 0.0)

    def normalised(self, out: Array) -> Array:
        """The result, after the head norm if there is one."""
        return out if self.lam_init is None else out / self.divisor(out) * self.dtype.type(self.gain())

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        return (self.normalised(self.combined()).astype(self.dtype),)


class SecondMapForgotten(Differential):
    name = "second-map-forgotten"
    explanation = "Nothing is taken away: the first attention alone."
    citation = CITATION
    needs = "lam != 0"

    def part(self) -> float:
        return 0.0


class MapsAdded(Differential):
    name = "maps-added"
    explanation = "The second attention is added instead of taken away."
    citation = CITATION
    needs = "lam != 0"

    def part(self) -> float:
        return -super().part()


class LambdaForgotten(Differential):
    name = "lambda-forgotten"
    explanation = "The second attention is taken away whole, not lam of it."
    citation = CITATION
    needs = "lam != 1"

    def part(self) -> float:
        return 1.0


class LambdaOnBoth(Differential):
    name = "lambda-on-both-maps"
    explanation = "The whole difference is multiplied by lam."
    citation = CITATION
    needs = "lam != 1"

    def combined(self) -> Array:
        return self.dtype.type(self.lam) * (self.result(FIRST) - self.result(SECOND))


class LambdaComplement(Differential):
    name = "lambda-complement-on-first"
    explanation = "The first attention is multiplied by 1 - lam, as in a mean of the two."
    citation = CITATION
    needs = "lam != 0"

    def combined(self) -> Array:
        return self.dtype.type(1 - self.part()) * self.result(FIRST) - self.dtype.type(self.part()) * self.result(SECOND)


class OneSoftmax(Differential):
    name = "softmax-of-the-difference"
    explanation = "The logits are subtracted, and one softmax is taken of their difference."
    citation = CITATION
    needs = "lam != 0"

    def combined(self) -> Array:
        scores = np.where(self.allowed(FIRST), self.logits(FIRST) - self.dtype.type(self.part()) * self.logits(SECOND), -np.inf)
        largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0.0))
        total = weights.sum(axis=-1, keepdims=True)
        return weights / np.where(total == 0, 1, total) @ self.read_values(FIRST)


class Renormalised(Differential):
    name = "difference-renormalised"
    explanation = "The difference of the weights is divided by its sum, 1 - lam."
    citation = CITATION
    needs = "lam not in (0, 1)"

    def combined(self) -> Array:
        return super().combined() / self.dtype.type(1 - self.part())


class Clipped(Differential):
    name = "negative-weights-clipped"
    explanation = "Weights that come out negative are set to zero."
    citation = CITATION
    needs = "lam > 0 and v2 is None"

    def combined(self) -> Array:
        weights = self.weights(FIRST) - self.dtype.type(self.part()) * self.weights(SECOND)
        return np.maximum(weights, 0) @ self.read_values(FIRST)


class MapsSwapped(Differential):
    name = "maps-swapped"
    explanation = "The first map is taken from the second."
    citation = CITATION

    def combined(self) -> Array:
        return self.result(SECOND) - self.dtype.type(self.part()) * self.result(FIRST)


class KeysCrossed(Differential):
    name = "keys-crossed"
    explanation = "The first queries read the second keys and the other way round."
    citation = CITATION

    def read_keys(self, which: int) -> Array:
        return super().read_keys(1 - which)


class FirstKeysForBoth(Differential):
    name = "first-keys-for-both-maps"
    explanation = "Both maps read the first keys."
    citation = CITATION
    needs = "lam != 0"

    def read_keys(self, which: int) -> Array:
        return super().read_keys(FIRST)


class FirstQueriesForBoth(Differential):
    name = "first-queries-for-both-maps"
    explanation = "Both maps are asked by the first queries."
    citation = CITATION
    needs = "lam != 0"

    def read_queries(self, which: int) -> Array:
        return super().read_queries(FIRST)


class SecondValuesIgnored(Differential):
    name = "second-values-ignored"
    explanation = "Both maps weigh the first values, although the second has its own."
    citation = CITATION
    needs = "lam != 0 and v2 is not None"

    def read_values(self, which: int) -> Array:
        return super().read_values(FIRST)


class ValuesSwapped(Differential):
    name = "values-swapped"
    explanation = "The first map weighs the second values and the other way round."
    citation = CITATION
    needs = "v2 is not None"

    def read_values(self, which: int) -> Array:
        return super().read_values(1 - which)
