"""Mistakes of grouped-query attention whose groups have an expert each: whose keys, and whose expert.

Shapes: B batch, Hq query heads, Hkv key/value heads, Lq and Lk lengths, D and Dv widths, F inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from conformance.pitfalls.experts import silu

__all__ = ["GroupExperts"]

CITATION = "Ainslie et al. 2023, arXiv:2305.13245; Dai et al. 2024, eq. 9, arXiv:2401.06066"


class GroupExperts(Steps):
    """Grouped-query attention, then the expert of every group."""

    methods: ClassVar[tuple[str, ...]] = ("grouped_query_attention_shared_experts",)
    citation: ClassVar[str] = CITATION

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
