"""Layers of experts: a mixture with capacities, tokens that skip a block, and attention whose groups have an expert each.

Shapes: T tokens, E experts, k of which a token chooses, B sequences, L length, D width, F inner width of an expert.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.dense import attention_with_lse
from oracle.readings.balls import is_balls
from oracle.readings.bounded import Bounded
from oracle.readings.features import as_matrix, sigmoid
from oracle.readings.ops import as_stored
from oracle.readings.shown import Decision, Interval, ranked, show

__all__ = ["grouped_query_attention_shared_experts", "kept_assignments", "mixture_of_depths", "moe_layer"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


def _expert(x: Array, w_in: Array, w_out: Array, w_gate: Array | None, activation: str) -> Array:
    """act(x w_in) w_out or, with a gate, (act(x w_gate) * (x w_in)) w_out; leading axes broadcast."""
    inner = np.matmul(x, w_in)
    pre = inner if w_gate is None else np.matmul(x, w_gate)
    active = np.maximum(pre, 0.0) if activation == "relu" else pre * sigmoid(pre)
    return np.matmul(as_matrix(active if w_gate is None else as_stored(active) * as_stored(inner)), w_out)


def kept_assignments(indices: np.ndarray, experts: int, capacity: int | None, priority: str) -> np.ndarray:
    """Which assignments (T, k) their experts have room for, bool; those that come first have it."""
    if capacity is None:
        return np.ones(indices.shape, dtype=bool)
    order = indices if priority == "token" else indices.T
    hot = order.reshape(-1, 1) == np.arange(experts)
    place = (np.cumsum(hot, axis=0) * hot).sum(axis=1).reshape(order.shape)  # counted from 1
    return (place if priority == "token" else place.T) <= capacity


@method(
    source="Fedus et al. 2021, section 2.2, arXiv:2101.03961; shared experts: Dai et al. 2024, eq. 9, arXiv:2401.06066",
    shapes="hidden: l d, indices: int l c, weights: l c, w_in: x d f, w_out: x f d, w_gate?: x d f, "
    "shared_in?: d f, shared_out?: f d, shared_gate?: d f -> l d",
    where={
        "(shared_in is None) == (shared_out is None)": "a shared expert has both its matrices",
        "shared_gate is None or shared_in is not None": "a gate belongs to a shared expert",
    },
    options={"capacity": "count", "activation": ("silu", "relu")},
    conventions={"priority": ("token", "choice")},
    domains={"indices": "index x"},
    tunables=("block_tokens",),
    cost="2 * x * l * d * f",
)
def moe_layer(
    hidden: Array, indices: np.ndarray, weights: Array, w_in: Array, w_out: Array, *, w_gate: Array | None = None,
    shared_in: Array | None = None, shared_out: Array | None = None, shared_gate: Array | None = None, capacity: int | None = None,
    activation: str = "silu", priority: str = "token",
) -> Array:  # fmt: skip
    """What the chosen experts make of each token, weighed and added, and what the shared expert makes of it, always.

    out[t] = sum over j of weights[t, j] expert_{indices[t, j]}(hidden[t]) + shared(hidden[t]). An expert is act(x w_in) w_out or, where
    w_gate is given, (act(x w_gate) * (x w_in)) w_out. Of the assignments to one expert only the first `capacity` count, in the
    order of tokens and, within a token, of its choices; the others are dropped: they add nothing and the weights that are left
    stay as they are. The shared expert has neither weight nor capacity; several of them are one with their widths joined.

    Args:
        hidden: states of the tokens (T, D).
        indices: the experts that each token chose (T, k), as `moe_topk_gating` gives them.
        weights: of these (T, k).
        w_in: (E, D, F).
        w_out: (E, F, D).
        w_gate: (E, D, F); makes the experts gated.
        shared_in, shared_out, shared_gate: of the shared expert (D, F), (F, D), (D, F).
        capacity: assignments that each expert has room for; None for all.
        activation: silu or relu.
        priority: ``choice``: all first choices come before all second ones (GShard), each in the order of tokens.

    Returns:
        (T, D); zeros for a token all of whose assignments were dropped, without a shared expert.

    Raises:
        ShapeError: a shared expert lacks a matrix.
        OptionError: an index is out of range, or the capacity below 0.
    """
    tokens, experts = hidden.shape[0], w_in.shape[0]
    made = as_stored(_expert(hidden[None], w_in, w_out, w_gate, activation))  # (E, T, D)
    chosen = made[indices, np.arange(tokens)[:, None]]  # (T, k, D)
    kept = kept_assignments(indices, experts, capacity, priority)
    out = np.sum(np.where(kept[..., None], as_stored(weights[..., None] * chosen), 0.0), axis=1)
    if shared_in is None or shared_out is None:
        return out
    return out + as_stored(_expert(hidden, shared_in, shared_out, shared_gate, activation))


class _Chosen(Decision):
    """Which tokens are processed, bool (B, L), by the largest scores of a sequence or by a threshold.

    Args:
        scores: (B, L).
        exact, then: as in `Decision`, of which the position is 1.
        count: of tokens of a sequence; None for a threshold.
        threshold: above which a token is processed.
    """

    def __init__(self, scores: Bounded, exact: np.ndarray, then: Any, count: int | None, threshold: float | None) -> None:
        self.scores, self.count, self.threshold = Interval(scores), count, 0.0 if threshold is None else threshold
        low, high = self.scores.low, self.scores.high
        if count is None:
            open_rows = ((low <= self.threshold) & (high > self.threshold)).any(axis=-1)
        else:
            inner = np.where(exact, low, np.inf).min(axis=-1, initial=np.inf)
            open_rows = np.where(~exact, high, -np.inf).max(axis=-1, initial=-np.inf) > inner
        super().__init__(exact, then, int(open_rows.sum()), position=1)

    def legitimate(self, decided: np.ndarray) -> np.ndarray:
        """Rows that some scores within the bounds choose: those left out may all come behind those that are chosen."""
        low, high = self.scores.low, self.scores.high
        if self.count is None:
            return np.where(decided, high > self.threshold, low <= self.threshold).all(axis=-1)
        length = low.shape[-1]
        right = decided.sum(axis=-1) == min(self.count, length)
        for place in range(length):
            ahead = (high > low[..., place, None]) | ((high == low[..., place, None]) & (np.arange(length) < place))
            right &= decided[..., place] | (ahead | ~decided).all(axis=-1)
        return right


@method(
    source="Raposo et al. 2024, eq. 1, arXiv:2404.02258",
    shapes="hidden: b l d, router: d, w_in: d f, w_out: f d -> out: b l d, chosen: bool b l",
    where={"(capacity is None) != (threshold is None)": "tokens are chosen either by number or by a threshold"},
    options={"capacity": "count", "threshold": "real"},
    cost="2 * b * l * d * f",
    decisions="b",
)
def mixture_of_depths(
    hidden: Array, router: Array, w_in: Array, w_out: Array, *, capacity: int | None = None, threshold: float | None = None
) -> tuple[Array, np.ndarray]:
    """A block that only some tokens go through; the others pass it by.

    The score of a token is r = hidden . router. Of each sequence the `capacity` tokens of largest score are processed, of equal ones
    the earlier, or all whose score exceeds the threshold: hidden + r f(hidden) for these and hidden for the others. The block is
    f(x) = silu(x w_in) w_out here, which looks at one token alone.

    Args:
        hidden: states of the tokens (B, L, D).
        router: (D,).
        w_in: (D, F).
        w_out: (F, D).
        capacity: how many tokens of a sequence are processed; all where it has no more.
        threshold: of the score.

    Returns:
        out (B, L, D), and which tokens were processed, bool (B, L).

    Raises:
        ShapeError: neither or both of capacity and threshold are given.
        OptionError: the capacity is below 0.
    """
    scores = np.matmul(hidden, router[:, None])[..., 0]
    update = as_stored(_expert(hidden, w_in, w_out, None, "silu"))
    processed = hidden + as_stored(scores[..., None] * update)

    def then(chosen: np.ndarray) -> tuple[Array, np.ndarray]:
        return np.where(chosen[..., None], processed, hidden), chosen

    exact = np.zeros(scores.shape, dtype=bool)
    if threshold is not None:
        exact = _above(scores, threshold)
    else:
        np.put_along_axis(exact, ranked(scores, np.array(True))[..., : capacity or 0], True, axis=-1)
    return show(scores, exact, then, lambda bound: _Chosen(bound, exact, then, capacity, threshold))  # type: ignore[return-value]


def _above(scores: Array, threshold: float) -> np.ndarray:
    if is_balls(scores):
        return np.array([bool(score > threshold) for score in scores.ravel()], dtype=bool).reshape(scores.shape)
    value: Any = getattr(scores, "value", scores)
    return np.asarray(value > threshold)


@method(
    source="Ainslie et al. 2023, arXiv:2305.13245, with experts as in Dai et al. 2024, arXiv:2401.06066",
    shapes="q: b h l d, k: b g s d, v: b g s e, w_in: g e f, w_out: g f e -> b h l e",
    where={"h % g == 0": "query heads divide among the key/value heads"},
    options={"causal": "flag", "scale": "real"},
    cost="b * h * l * s + b * h * l * e * f",
)
def grouped_query_attention_shared_experts(
    q: Array, k: Array, v: Array, w_in: Array, w_out: Array, *, causal: bool = False, scale: float | None = None
) -> Array:
    """Grouped-query attention whose groups have an expert each, which all query heads of the group share.

    out[h] = attention[h] + silu(attention[h] w_in[g]) w_out[g], with g the key/value head that query head h reads: every head
    of a group goes through the same expert, and no head through another group's.

    Args:
        q: queries (B, Hq, Lq, D).
        k: keys (B, Hkv, Lk, D); query head h reads key/value head h // (Hq // Hkv).
        v: values (B, Hkv, Lk, Dv).
        w_in: of the experts (Hkv, Dv, F).
        w_out: (Hkv, F, Dv).
        causal: key j is allowed where j <= i + Lk - Lq; a row without keys gives zeros.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, Lq, Dv).
    """
    attended, _ = attention_with_lse.spec(q, k, v, causal=causal, scale=scale)
    group = np.arange(q.shape[1]) // (q.shape[1] // k.shape[1])
    stored = as_matrix(as_stored(attended))
    return attended + as_stored(_expert(stored, w_in[group], w_out[group], None, "silu"))
