"""Routing: which experts a token goes to, with which weights, and what measures how evenly they are used.

Which experts are chosen is a discrete decision, taken for each token by itself and shown by the indices that come out; see
`oracle.readings.shown`.

Shapes: T tokens, E experts, k of which a token chooses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.bounded import Bounded
from oracle.readings.features import sigmoid
from oracle.readings.ops import probabilities, shifted_exponentials
from oracle.readings.shown import Interval, Ranking, classes, closed_above, ranked, show

__all__ = ["moe_topk_gating"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

# Experts of a group whose scores add up to that of the group (DeepSeek-V3, section 2.1.2: K_r / M, which is 2 there).
BEST_OF_GROUP = 2

# What keeps a sum from being 0 in DeepSeek-V3's own code (modeling_deepseek.py).
GUARD = 1e-20


def _affinities(logits: Array, scoring: str) -> Array:
    """What each expert is worth to each token, (T, E)."""
    if scoring == "sigmoid":
        return sigmoid(logits)
    weights, _ = shifted_exponentials(logits)
    return probabilities(weights, np.sum(weights, axis=-1, keepdims=True))


def _shares(chosen: Array, denominator: str) -> Array:
    """Affinities over their sum; anything where a kernel's may all have become 0."""
    total = np.sum(chosen, axis=-1, keepdims=True)
    shares = chosen / (total if denominator == "sum" else total + GUARD)
    if not isinstance(shares, Bounded):
        return shares
    error = shares.full_error  # a quotient of something positive lies between 0 and 1, but for its own rounding
    capped = np.where(np.isfinite(error), np.minimum(error, 1 + 2 * shares.contract.unit_roundoff), np.inf)
    return Bounded(shares.value, capped, shares.contract)


def _group_scores(scores: Array, groups: int, best: int) -> Array:
    """The sum of the best scores of each group, (T, groups); scores (T, groups * size)."""
    split = scores.reshape(scores.shape[0], groups, scores.shape[1] // groups)
    order = ranked(split, np.array(True))[..., :best]
    total = np.sum(np.take_along_axis(split, order, axis=-1), axis=-1)
    if not isinstance(total, Bounded):
        return total
    # Whichever a kernel takes for the best of a group, its score differs by no more than the largest error in the group.
    error = np.maximum(total.full_error, order.shape[-1] * split.full_error.max(axis=-1))
    return Bounded(total.value, error, total.contract)


class _Grouped:
    """Which experts compete, given those that a token chose, where only some groups of experts take part.

    Args:
        scores: of the groups, (T, groups).
        alike: numbers, equal for groups whose scores are equal on every machine.
        size: experts in a group.
        count: groups that take part.
    """

    def __init__(self, scores: Bounded, alike: np.ndarray, size: int, count: int) -> None:
        self.scores, self.size, self.count = Interval(scores, alike), size, count

    def admitted(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidates (T, E), and whether some legitimate choice of groups holds those of the chosen experts, (T,).

        Candidates are the experts of groups that every such choice holds. Near ties between groups leave it open whether
        others compete as well, and then they are not asked to.
        """
        tokens, groups = self.scores.low.shape
        used = np.zeros((tokens, groups), dtype=bool)
        np.put_along_axis(used, order // self.size, True, axis=-1)
        needed, must = closed_above(self.scores, used)
        beneath = must | np.eye(groups, dtype=bool)  # what is out where group i is
        hit = (beneath & used[:, None, :]).any(axis=-1)
        too_few = groups - beneath.sum(axis=-1) < self.count
        certain = used | hit | too_few
        return np.repeat(certain, self.size, axis=-1), needed.sum(axis=-1) <= self.count


@method(
    source="Shazeer et al. 2017, eq. 3 to 5, arXiv:1701.06538; DeepSeek-AI 2024, eq. 13 to 16, arXiv:2412.19437",
    shapes="logits: l x, correction?: statistic x -> indices: int l c, weights: l c",
    where={
        "k <= x": "a token chooses no more experts than there are",
        "groups is None or x % groups == 0": "groups are of equal size",
        "top_groups is None or top_groups <= (groups or 1)": "no more groups take part than there are",
        "k * (groups or 1) <= (top_groups or 1) * x": "the groups that take part hold as many experts as a token chooses",
    },
    options={"k": "size", "renormalize": "flag", "scoring": ("softmax", "sigmoid"), "groups": "size", "top_groups": "size"},
    conventions={"group_score": ("best-two", "best"), "denominator": ("sum", "sum+1e-20"), "ties": ("lower-index", "any")},
    derived={"c": "k"},
    domains={"logits": "finite", "correction": "finite"},
    tunables=("block_tokens",),
    cost="4 * l * x",
    decisions="l",
)
def moe_topk_gating(
    logits: Array,
    k: int,
    *,
    renormalize: bool = True,
    scoring: str = "softmax",
    correction: Array | None = None,
    groups: int = 1,
    top_groups: int = 1,
    group_score: str = "best-two",
    denominator: str = "sum",
    ties: str = "lower-index",
) -> tuple[np.ndarray, Array]:
    """The k experts of most worth to each token, and the weights of what they return.

    The affinities s of a token are the softmax of its logits over all experts, or their sigmoids. It chooses the k experts of
    largest s + correction, in falling order, of equal ones the lower index first; with groups, among the experts of the
    top_groups groups of largest score, which is the sum of the two largest s + correction in the group. The weights are the
    affinities s of the chosen experts, without the correction, divided by their sum if they are renormalised.

    Experts with equal logits and equal corrections have equal scores on every machine: an exact tie. Others whose scores lie
    closer than rounding errors reach may be chosen, and stand, in either order.

    Args:
        logits: of the router (T, E), finite.
        k: how many experts a token chooses.
        renormalize: whether the weights of a token add up to 1.
        scoring: whether affinities are a softmax over all experts, or sigmoids (DeepSeek-V3, eq. 15).
        correction: (E,), added to the affinities where experts are chosen and nowhere else (DeepSeek-V3, eq. 16).
        groups: number of groups of consecutive experts.
        top_groups: how many of them a token may choose from (group-limited or node-limited routing).
        group_score: ``best``: the score of a group is its largest s + correction (DeepSeek-V2, arXiv:2405.04434, section 2.1.2).

        denominator: ``sum+1e-20``: weights are divided by their sum and 1e-20, as DeepSeek-V3's own code does; where all chosen
            sigmoids are that small, they no longer add up to 1.
        ties: ``any``: experts with equal scores may be chosen, and stand, in either order, as those of torch.topk do.

    Returns:
        indices (T, k) and weights (T, k), by falling score.

    Raises:
        ShapeError: more experts are chosen than there are, or the groups do not fit.
        OptionError: a logit is NaN or infinite, or an option out of range.
    """
    affinities = _affinities(logits, scoring)
    scores = affinities if correction is None else affinities + correction
    size = logits.shape[-1] // groups

    def then(order: np.ndarray) -> tuple[np.ndarray, Array]:
        chosen = np.take_along_axis(affinities, order, axis=-1)
        return order, _shares(chosen, denominator) if renormalize else chosen

    if top_groups == groups:
        exact = ranked(scores, np.array(True))[..., :k]
        return show(scores, exact, then, lambda bound: Ranking(bound, exact, then, alike=_alike(logits, correction, ties)))

    best = BEST_OF_GROUP if group_score == "best-two" else 1
    worth = _group_scores(scores, groups, best)
    taking_part = np.zeros(worth.shape, dtype=bool)
    np.put_along_axis(taking_part, ranked(worth, np.array(True))[..., :top_groups], True, axis=-1)
    exact = ranked(scores, np.repeat(taking_part, size, axis=-1))[..., :k]

    def decision(bound: Bounded) -> Ranking:
        alike = _alike(logits, correction, ties)
        order = ranked(bound.value.reshape(-1, groups, size), np.array(True))[..., :best]
        members = np.take_along_axis(alike.reshape(-1, groups, size), order, axis=-1)
        groups_alike = classes(*(members[..., place] for place in range(members.shape[-1])))
        grouped = _Grouped(worth, groups_alike, size, top_groups)
        open_groups = _open_rows(grouped.scores, taking_part)
        return Ranking(bound, exact, then, alike=alike, admitted=grouped.admitted, near_ties=open_groups)

    return show(scores, exact, then, decision)


def _alike(logits: Bounded, correction: Bounded | None, ties: str) -> np.ndarray:
    """Numbers, equal for experts whose scores are computed from equal numbers and who come by index where they are."""
    if ties == "any":
        return np.broadcast_to(np.arange(logits.shape[-1]), logits.shape)
    return classes(logits.value) if correction is None else classes(logits.value, correction.value)


def _open_rows(scores: Interval, members: np.ndarray) -> np.ndarray:
    """Rows (...) in which another set of so many than the members (..., m) is legitimate."""
    inner = np.where(members, scores.low, np.inf).min(axis=-1, initial=np.inf)
    outer = np.where(~members, scores.high, -np.inf).max(axis=-1, initial=-np.inf)
    return outer > inner
