"""Mistakes in which experts a router chooses: by what they are ranked, which of equal ones comes first, and within which groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array
from conformance.pitfalls.routing import DEEPSEEK_V3, Gating

__all__: list[str] = []


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
