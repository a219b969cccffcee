"""Mistakes of native sparse attention in how the branches are weighed and joined, in scale, heads and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.native_sparse import NativeSparse


class GatesSoftmaxed(NativeSparse):
    name = "gates-softmaxed"
    explanation = "The gates go through a softmax over the branches; they are given as they are used (eq. 5)."

    def gate(self) -> Array:
        return np.exp(self.gates) / np.exp(self.gates).sum(axis=-1, keepdims=True)


class GatesNormalised(NativeSparse):
    name = "gates-normalised"
    explanation = "The gates are divided by their sum, so that they add up to one."

    def gate(self) -> Array:
        return self.gates / self.gates.sum(axis=-1, keepdims=True)


class GatesSigmoid(NativeSparse):
    name = "gates-through-a-sigmoid"
    explanation = "The gates go through a sigmoid once more."

    def gate(self) -> Array:
        return 1 / (1 + np.exp(-self.gates))


class GatesExchanged(NativeSparse):
    name = "gates-of-compressed-and-selected-exchanged"
    explanation = "The first gate weighs the selected branch and the second the compressed one."

    def gate(self) -> Array:
        return self.gates[..., [1, 0, 2]]


class GatesReversed(NativeSparse):
    name = "gates-in-reverse-order"
    explanation = "The first gate weighs the windowed branch and the last the compressed one."

    def gate(self) -> Array:
        return self.gates[..., ::-1]


class GatesForgotten(NativeSparse):
    name = "gates-forgotten"
    explanation = "The branches are added without gates."

    def gate(self) -> Array:
        return np.ones_like(self.gates)


class GatesOfFirstHead(NativeSparse):
    name = "gates-of-first-head"
    explanation = "The gates of the first query head weigh the branches of all heads."
    needs = "h > 1"

    def gate(self) -> Array:
        return np.broadcast_to(self.gates[:, :1], self.gates.shape)


class GatedBeforeNormalisation(NativeSparse):
    name = "gates-before-normalisation"
    explanation = "The branches are gated as numerators and divided by one gated sum of all, instead of each by its own (eq. 5)."

    def outputs(self) -> tuple[Array, ...]:
        logits = [self.compressed_logits(), self.logits(), self.logits()]
        reads = [self.whole(), self.tokens(), self.near()]
        scores = [np.where(read, one, -np.inf) for one, read in zip(logits, reads, strict=True)]
        largest = np.max([one.max(axis=-1, keepdims=True, initial=-np.inf) for one in scores], axis=0)
        values = [self.read(self.summaries(self.v, self.value_weights())), self.read(self.v), self.read(self.v)]
        weights = [np.exp(one - largest) * self.gates[..., c : c + 1] for c, one in enumerate(scores)]
        total = sum(one.sum(axis=-1, keepdims=True) for one in weights)
        mixed = sum(one @ value for one, value in zip(weights, values, strict=True))
        return (mixed / np.where(total == 0, 1.0, total),)


class WindowWithSelected(NativeSparse):
    name = "window-and-selected-in-one-softmax"
    explanation = "The selected blocks take the window's keys along; the selected branch reads only what it chose."

    def tokens(self) -> Array:
        return super().tokens() | self.near()


class CompressedScaleForgotten(NativeSparse):
    name = "compressed-scale-forgotten"
    explanation = "The logits of the compressed branch are not scaled."
    needs = "summaries > 1 and factor != 1"

    def compressed_factor(self) -> float:
        return 1.0


class ScaleForgotten(NativeSparse):
    name = "scale-forgotten"
    explanation = "The logits of no branch are scaled."
    needs = "l > 1 and factor != 1"

    def factor(self) -> float:
        return 1.0


class ScaleIgnored(NativeSparse):
    name = "scale-option-ignored"
    explanation = "The option `scale` is ignored."
    needs = "l > 1 and scale is not None"

    def factor(self) -> float:
        return float(self.width**-0.5)


class ScaleOptionForTokensOnly(NativeSparse):
    name = "compressed-scale-option-ignored"
    explanation = "The compressed branch scales by 1 / sqrt(D) although `scale` is given."
    needs = "summaries > 1 and scale is not None"

    def compressed_factor(self) -> float:
        return float(self.width**-0.5)


class ScaleOfZero(NativeSparse):
    name = "scale-zero-taken-for-default"
    explanation = "A scale of 0 is taken for none: `scale or 1 / sqrt(D)`."
    needs = "l > 1 and scale == 0"

    def factor(self) -> float:
        return float(self.scale or self.width**-0.5)


class HeadsInterleaved(NativeSparse):
    name = "heads-interleaved"
    explanation = "Query head h reads key/value head h % Hkv instead of h // (Hq // Hkv)."
    needs = "1 < g < h"

    def kv_heads(self) -> Array:
        return np.arange(self.heads) % self.groups


class HeadsFirst(NativeSparse):
    name = "heads-first-kv-head"
    explanation = "All query heads read the first key/value head."
    needs = "g > 1"

    def kv_heads(self) -> Array:
        return np.zeros(self.heads, np.int64)


class Unstable(NativeSparse):
    name = "unstable-softmax"
    explanation = "No maximum is subtracted before the exponential, which overflows."
    occasional = True

    def exponentials(self, scores: Array) -> Array:
        return np.exp(scores)


class InFloat32(NativeSparse):
    name = "computed-in-float32"
    explanation = "Float64 arguments are computed with in float32."
    citation = "Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 2.2"
    needs = "dtype == 'float64' and l > 1"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        narrow = {name: value.astype(np.float32) if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
        super().__init__(narrow, replace(setting, working=np.dtype(np.float32)))
