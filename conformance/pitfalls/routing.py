"""Mistakes of routers: by what experts are ranked, which of equal ones comes first, and what becomes of the weights.

Shapes: T tokens, E experts, k of which a token chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Steps
from oracle import METHODS

__all__ = ["Gating"]

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


class TiesToHigherIndex(Gating):
    name = "ties-to-the-higher-index"
    explanation = "Of experts with equal scores the last ones are chosen first, as by a sort that is reversed."
    citation = "pytorch/pytorch, torch.topk: the order of equal elements is not defined"
    occasional = True
    needs = "x > 1 and ties == 'lower-index'"

    def places(self, scores: Array) -> Array:
        return np.argsort(scores, axis=-1, kind="stable")[..., ::-1]


class LastOfTiesFirst(Gating):
    name = "chosen-in-index-order"
    explanation = "The chosen experts come in the order of their indices instead of by falling score."
    occasional = True
    needs = "k > 1"

    def indices(self) -> Array:
        return np.sort(super().indices(), axis=-1)


class RisingOrder(Gating):
    name = "chosen-in-rising-order"
    explanation = "The chosen experts come by rising score."
    needs = "k > 1"
    occasional = True

    def indices(self) -> Array:
        return super().indices()[..., ::-1]


class CorrectionInWeights(Gating):
    name = "correction-in-weights"
    explanation = "The correction is added to the weights as well, not only where experts are chosen (eq. 16)."
    citation = DEEPSEEK_V3
    needs = "corrected and (k > 1 or not renormalised)"
    occasional = True

    def worth(self) -> Array:
        return self.scores()


class CorrectionIgnored(Gating):
    name = "correction-ignored"
    explanation = "Experts are chosen by their affinities, without the correction."
    citation = DEEPSEEK_V3
    needs = "corrected and x > 1"
    occasional = True

    def scores(self) -> Array:
        return self.affinities()


class CorrectionOfLogits(Gating):
    name = "correction-added-to-logits"
    explanation = "The correction is added to the logits, before the softmax or the sigmoid, in the choice."
    citation = DEEPSEEK_V3
    needs = "corrected and x > 1"
    occasional = True

    def scores(self) -> Array:
        assert self.correction is not None
        plain, self.logits = self.logits, self.logits + self.correction
        scores = self.affinities()
        self.logits = plain
        return scores


class CorrectionSubtracted(Gating):
    name = "correction-subtracted"
    explanation = "The correction is subtracted from the affinities."
    citation = DEEPSEEK_V3
    needs = "corrected and x > 1"
    occasional = True

    def scores(self) -> Array:
        return self.affinities() - self.correction


class GroupsByBest(Gating):
    name = "groups-by-their-best"
    explanation = "The score of a group is its best expert's (DeepSeek-V2), not the sum of its two best."
    citation = "DeepSeek-AI 2024, section 2.1.2, arXiv:2405.04434"
    needs = "limited and size > 1 and group_score == 'best-two'"
    occasional = True

    def group_scores(self, split: Array) -> Array:
        return split.max(axis=-1)


class GroupsByTwo(Gating):
    name = "groups-by-their-two-best"
    explanation = "The score of a group is the sum of its two best experts (DeepSeek-V3), where its best alone is declared."
    citation = DEEPSEEK_V3
    needs = "limited and size > 1 and group_score == 'best'"
    occasional = True

    def group_scores(self, split: Array) -> Array:
        return np.sort(split, axis=-1)[..., -2:].sum(axis=-1)


class GroupsBySum(Gating):
    name = "groups-by-sum-of-all"
    explanation = "The score of a group adds up all its experts."
    citation = DEEPSEEK_V3
    needs = "limited and size > 1"
    occasional = True

    def group_scores(self, split: Array) -> Array:
        return split.sum(axis=-1)


class GroupsWithoutCorrection(Gating):
    name = "groups-without-correction"
    explanation = "Groups are ranked by affinities alone; the correction only counts among the experts of the groups that take part."
    citation = DEEPSEEK_V3
    needs = "limited and corrected"
    occasional = True

    def group_scores(self, split: Array) -> Array:
        return super().group_scores(self.affinities().reshape(split.shape))


class GroupsIgnored(Gating):
    name = "groups-ignored"
    explanation = "Experts of all groups may be chosen."
    citation = DEEPSEEK_V3
    needs = "limited"
    occasional = True

    def taking_part(self) -> Array:
        return np.ones(self.logits.shape, dtype=bool)


class GroupsInterleaved(Gating):
    name = "groups-interleaved"
    explanation = "Expert e is taken to be in group e % groups; groups are of consecutive experts."
    citation = DEEPSEEK_V3
    needs = "limited and size > 1"
    occasional = True

    def taking_part(self) -> Array:
        split = np.swapaxes(self.scores().reshape(self.tokens, self.experts // self.groups, self.groups), 1, 2)
        kept = self.places(self.group_scores(split))[:, : self.top_groups]
        part = (np.arange(self.groups) == kept[..., None]).any(axis=1)
        return np.tile(part, self.experts // self.groups)


class HiddenAsZero(Gating):
    name = "hidden-groups-score-zero"
    explanation = "Experts of groups that take no part get the score 0 instead of minus infinity, which beats a negative s + correction."
    citation = "deepseek-ai/DeepSeek-V3, inference/model.py: masked_fill(mask, 0.0) in its first version"
    needs = "limited and corrected"
    occasional = True

    def hidden(self) -> float:
        return 0.0


class HiddenScoresKept(Gating):
    name = "one-group-too-many"
    explanation = "One group more than top_groups takes part."
    citation = DEEPSEEK_V3
    needs = "limited"
    occasional = True

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        self.limited, self.top_groups = self.top_groups < self.groups, self.top_groups + 1

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "limited": self.limited}


class RankedInStorage(Gating):
    name = "ranked-in-storage-precision"
    explanation = "Affinities are rounded to 16 bits before experts are chosen, so that close ones become equal; routers rank in float32."
    citation = "Fedus et al. 2021, section 2.4 (selective precision), arXiv:2101.03961"
    needs = "dtype == 'float16' or dtype == 'bfloat16'"
    occasional = True

    def scores(self) -> Array:
        return self.stored(super().scores())


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
