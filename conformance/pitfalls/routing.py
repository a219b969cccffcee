"""Routers in small steps, and mistakes in what becomes of the weights of the experts that were chosen.

Shapes: T tokens, E experts, k of which a token chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle import METHODS

__all__ = ["DEEPSEEK_V3", "METHOD", "SHAZEER", "Gating"]

METHOD = "moe_topk_gating"
SHAZEER = "Shazeer et al. 2017, eq. 3 to 5, arXiv:1701.06538"
DEEPSEEK_V3 = "DeepSeek-AI 2024, eq. 13 to 16, arXiv:2412.19437"


class Gating(Steps):
    """What the specification means, in the working dtype of a kernel."""

    methods: ClassVar[tuple[str, ...]] = (METHOD,)
    citation: ClassVar[str] = SHAZEER

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.conventions = {name: arguments.get(name, values[0]) for name, values in METHODS[METHOD].conventions.items()}
        self.logits, self.correction, self.k = arguments["logits"], arguments.get("correction"), arguments["k"]
        self.renormalize = arguments.get("renormalize", True)
        self.scoring = arguments.get("scoring") or "softmax"
        self.groups, self.top_groups = arguments.get("groups") or 1, arguments.get("top_groups") or 1
        self.tokens, self.experts = self.logits.shape

    def facts(self) -> dict[str, Any]:
        """Dimensions, options and conventions by name, and what follows from them."""
        return {
            **{name: self.arguments.get(name) for name in METHODS[METHOD].options}, **self.conventions, "l": self.tokens, "x": self.experts,
            "c": self.k, "renormalised": self.renormalize, "sigmoid": self.scoring == "sigmoid", "limited": self.top_groups < self.groups,
            "corrected": self.correction is not None, "size": self.experts // self.groups, "dtype": self.setting.dtype,
        }  # fmt: skip

    def applies(self) -> bool:
        """Whether the mistake can show on this call."""
        return self.logits.size > 0 and super().applies()

    def softmax(self, logits: Array) -> Array:
        """Over the last axis."""
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def affinities(self) -> Array:
        """What every expert is worth, (T, E)."""
        if self.scoring == "softmax":
            return self.softmax(self.logits)
        tail = np.exp(-np.abs(self.logits))
        return np.where(self.logits >= 0, 1, tail) / (1 + tail)

    def scores(self) -> Array:
        """By what experts are ranked, (T, E)."""
        return self.affinities() if self.correction is None else self.affinities() + self.correction

    def group_scores(self, split: Array) -> Array:
        """(T, groups), from the scores (T, groups, size)."""
        best = 2 if self.conventions["group_score"] == "best-two" else 1
        return np.sort(split, axis=-1)[..., -best:].sum(axis=-1)

    def places(self, scores: Array) -> Array:
        """All indices by falling score."""
        return np.argsort(-scores, axis=-1, kind="stable")

    def taking_part(self) -> Array:
        """Experts that may be chosen, bool (T, E)."""
        split = self.scores().reshape(self.tokens, self.groups, self.experts // self.groups)
        kept = self.places(self.group_scores(split))[:, : self.top_groups]
        part = (np.arange(self.groups) == kept[..., None]).any(axis=1)
        return np.repeat(part, self.experts // self.groups, axis=-1)

    def hidden(self) -> float:
        """The score of an expert that takes no part."""
        return -np.inf

    def indices(self) -> Array:
        """(T, k)."""
        scores = self.scores()
        if self.top_groups < self.groups:
            scores = np.where(self.taking_part(), scores, self.dtype.type(self.hidden()))
        return self.places(scores)[:, : self.k]

    def worth(self) -> Array:
        """What the weights are taken from, (T, E)."""
        return self.affinities()

    def divided(self, weights: Array) -> Array:
        """The weights of the chosen experts, renormalised where they are to be."""
        return self.shares(weights) if self.renormalize else weights

    def shares(self, weights: Array) -> Array:
        """Weights over their sum."""
        guard = self.dtype.type(0 if self.conventions["denominator"] == "sum" else 1e-20)
        return weights / (weights.sum(axis=-1, keepdims=True) + guard)

    def outputs(self) -> tuple[Array, ...]:
        """The steps in order."""
        indices = self.indices()
        return indices, self.divided(np.take_along_axis(self.worth(), indices, axis=-1)).astype(self.dtype)


class NotRenormalised(Gating):
    name = "weights-not-renormalised"
    explanation = "The weights of the chosen experts are not divided by their sum, so that they add up to less than 1."
    needs = "renormalised and x > 1"

    def divided(self, weights: Array) -> Array:
        return weights


class AlwaysRenormalised(Gating):
    name = "weights-always-renormalised"
    explanation = "The weights are divided by their sum although renormalize=False asks for the affinities themselves."
    needs = "not renormalised"

    def divided(self, weights: Array) -> Array:
        return self.shares(weights)


class SoftmaxAfterChoice(Gating):
    name = "softmax-after-choice"
    explanation = "The softmax runs over the chosen logits only (Mixtral); without renormalisation that is another weight."
    citation = "Jiang et al. 2024, section 2.1, arXiv:2401.04088; softmax over all experts: Shazeer et al. 2017"
    needs = "not sigmoid and not renormalised and k < x"

    def outputs(self) -> tuple[Array, ...]:
        indices = self.indices()
        return indices, self.softmax(np.take_along_axis(self.logits, indices, axis=-1)).astype(self.dtype)


class SoftmaxTwice(Gating):
    name = "softmax-of-chosen-weights"
    explanation = "The weights of the chosen experts are normalised by a softmax instead of by their sum."
    needs = "renormalised and k > 1"

    def divided(self, weights: Array) -> Array:
        return self.softmax(weights)


class SigmoidsUndivided(Gating):
    name = "sigmoids-not-renormalised"
    explanation = "The sigmoids of the chosen experts are used as they are, as if they were a softmax already (eq. 13 divides them)."
    citation = DEEPSEEK_V3
    needs = "sigmoid and renormalised"

    def divided(self, weights: Array) -> Array:
        return weights


class SigmoidsOverAll(Gating):
    name = "divided-by-sum-over-all-experts"
    explanation = "The affinities of the chosen experts are divided by the sum over all experts, not over the chosen ones."
    citation = DEEPSEEK_V3
    needs = "sigmoid and renormalised and k < x"

    def divided(self, weights: Array) -> Array:
        return weights / self.worth().sum(axis=-1, keepdims=True)


class SoftmaxForSigmoid(Gating):
    name = "softmax-where-sigmoid"
    explanation = "Affinities are a softmax although scoring says sigmoid."
    citation = DEEPSEEK_V3
    needs = "sigmoid and x > 1 and (k > 1 or not renormalised)"

    def affinities(self) -> Array:
        return self.softmax(self.logits)


class Unstable(Gating):
    name = "softmax-without-maximum"
    explanation = "The maximum is not subtracted: exponentials of large logits overflow."
    needs = "not sigmoid"
    occasional = True

    def softmax(self, logits: Array) -> Array:
        weights = np.exp(logits)
        return weights / weights.sum(axis=-1, keepdims=True)


class TransposedSoftmax(Gating):
    name = "softmax-over-tokens"
    explanation = "The softmax runs over the tokens instead of the experts."
    needs = "not sigmoid and l > 1"

    def softmax(self, logits: Array) -> Array:
        return super().softmax(logits.T).T


class CountOneShort(Gating):
    name = "last-place-repeats-first"
    explanation = "The last of the k places repeats the first: only k - 1 experts are chosen."
    needs = "k > 1"
    occasional = True

    def indices(self) -> Array:
        indices = super().indices().copy()
        indices[:, -1] = indices[:, 0]
        return indices


class WeightOfEqualShare(Gating):
    name = "weights-all-alike"
    explanation = "Every chosen expert gets the same weight, 1 / k."
    needs = "k > 1"
    occasional = True

    def divided(self, weights: Array) -> Array:
        return np.full_like(weights, 1 / self.k)
