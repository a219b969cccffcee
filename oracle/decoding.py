"""Decoding with drafts: which drafted tokens are kept, what is sampled instead, and heads that predict several tokens.

Randomness is an explicit input. How many drafted tokens are accepted, and which token a number stands for, are discrete decisions
that the output shows; see `oracle.readings.shown`.

Shapes: B sequences, n drafted tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.balls import is_balls
from oracle.readings.bounded import Bounded
from oracle.readings.features import as_matrix, is_positive
from oracle.readings.ops import as_stored, logarithm, shifted_exponentials
from oracle.readings.shown import Decision, show

__all__ = ["multi_token_prediction", "speculative_accept", "speculative_residual", "speculative_sampling"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

LEVIATHAN = "Leviathan et al. 2023, algorithm 1, arXiv:2211.17192"

# Stands where no token is.
NO_TOKEN = -1


def _of_draft(p: Array, q: Array, draft: np.ndarray) -> tuple[Array, Array]:
    """Probabilities of the drafted tokens under both models, (B, n)."""
    chosen = draft[..., None]
    return tuple(np.take_along_axis(x, chosen, axis=-1)[..., 0] for x in (p[:, : draft.shape[1]], q))  # type: ignore[return-value]


def _plain(x: Array) -> Any:
    """Inputs as floats; the exact ones, whatever the reading made of them."""
    if is_balls(x):
        return np.array([float(one) for one in x.ravel()], dtype=np.float64).reshape(x.shape)
    return np.asarray(getattr(x, "value", x))


def _accepts(p: Array, q: Array, u: Array, ties: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which tokens are accepted (B, n), and in the budget reading which may and which must be; else thrice the same."""
    own, other, uniform = _plain(p), _plain(q), _plain(u)
    # The exact comparison of u with p / q: of products of two floats, in whole numbers where doubles would round.
    with np.errstate(over="ignore", under="ignore"):
        left, right = uniform.astype(np.longdouble) * other, own.astype(np.longdouble)
    exact = left <= right if ties == "accepted" else left < right
    exact = exact | (other == 0)  # a token that the draft model cannot draw is no more likely there
    if not isinstance(p, Bounded):
        return exact, exact, exact
    contract = p.contract
    # A kernel forms p / q (a quotient, by way of a reciprocal perhaps) or u * q; both are exact where q is a power of two.
    mantissa, _ = np.frexp(other)
    rounds = (mantissa != 0.5) & (own != 0)
    larger = np.maximum(left, right)
    flushed = (larger > 0) & (larger <= 2 * contract.flush)  # u * q may become 0
    slack = 3 * contract.unit_roundoff * rounds * (left + right) + contract.flush * flushed
    close = (np.abs(left - right) <= slack) & (slack > 0) & (other != 0)
    return exact, exact | close, exact & ~close


def _leading(accepted: np.ndarray) -> np.ndarray:
    """How many come before the first that is not accepted, (B,)."""
    return np.cumprod(accepted, axis=-1).sum(axis=-1).astype(np.int64)


class _Accepted(Decision):
    """How many drafted tokens are accepted.

    Args:
        exact, then: as in `Decision`.
        may, must: bool (B, n): which may be accepted, and which have to be.
    """

    def __init__(self, exact: np.ndarray, then: Any, may: np.ndarray, must: np.ndarray) -> None:
        self.may, self.must = may, must
        super().__init__(exact, then, int((_leading(may) != _leading(must)).sum()))

    def legitimate(self, decided: np.ndarray) -> np.ndarray:
        """All before may be accepted, and the next one need not be."""
        drafted = self.may.shape[1]
        inside = (decided >= 0) & (decided <= drafted)
        reach = _leading(self.may)
        if not drafted:
            return inside
        ends = np.concatenate([~self.must, np.ones((len(decided), 1), dtype=bool)], axis=1)
        return inside & (decided <= reach) & np.take_along_axis(ends, np.where(inside, decided, 0)[:, None].astype(np.int64), axis=1)[:, 0]


SAMPLED = {"p": "probability", "q": "probability", "draft": "index v", "u": "uniform"}
COST = "4 * b * n * v"


@method(
    source=LEVIATHAN,
    shapes="p: b m v, q: b n v, draft: int b n, u: b n -> accepted: int b",
    conventions={"ties": ("accepted", "rejected")},
    derived={"m": "n + 1"},
    domains=SAMPLED,
    cost=COST,
    decisions="b",
)
def speculative_accept(p: Array, q: Array, draft: np.ndarray, u: Array, *, ties: str = "accepted") -> np.ndarray:
    """How many drafted tokens the target model keeps: those before the first one with u > p / q.

    Token i is accepted where u_i <= p_i(draft_i) / q_i(draft_i), so always where p >= q; tokens behind the first that is not
    accepted do not count. A token that the draft model gives no probability is accepted.

    Args:
        p: probabilities of the target model after 0 to n drafted tokens (B, n + 1, V); the last row is not read here.
        q: of the draft model (B, n, V).
        draft: the drafted tokens (B, n).
        u: uniform random numbers in [0, 1), one for each (B, n).
        ties: ``rejected``: accepted where u < p / q.

    Returns:
        (B,), from 0 to n. Where u and p / q lie closer than rounding reaches, either is right.

    Raises:
        OptionError: a token is out of range, rows are no probabilities, or u lies outside [0, 1).
    """
    own, other = _of_draft(p, q, draft)
    exact, may, must = _accepts(own, other, u, ties)

    def then(accepted: np.ndarray) -> tuple[np.ndarray]:
        return (accepted,)

    return show(own, _leading(exact), then, lambda _: _Accepted(_leading(exact), then, may, must))[0]


def _left_over(p: Array, q: Array) -> tuple[Array, Array]:
    """max(p - q, 0) and its sum over the last axis, which stays as an axis of size 1."""
    left = p - q
    left = np.where(is_positive(left), left, 0.0)  # no machine gets the sign of a difference of two inputs wrong
    return left, np.sum(left, axis=-1, keepdims=True)


@method(
    source="Leviathan et al. 2023, section 2.3, arXiv:2211.17192",
    shapes="p: b v, q: b v -> b v",
    conventions={"nothing_left": ("target", "zeros")},
    domains={"p": "probability", "q": "probability"},
)
def speculative_residual(p: Array, q: Array, *, nothing_left: str = "target") -> Array:
    """What is sampled from where a drafted token was not accepted: norm(max(p - q, 0)).

    Args:
        p: probabilities of the target model (B, V).
        q: of the draft model (B, V).
        nothing_left: where q is nowhere below p, as where both are the same, no drafted token is rejected and nothing is left to
            normalise: the row is p itself, or ``zeros``.

    Returns:
        (B, V), rows that add up to 1.

    Raises:
        OptionError: rows are no probabilities.
    """
    left, total = _left_over(p, q)
    some = is_positive(total)
    return np.where(some, left / np.where(some, total, 1.0), p if nothing_left == "target" else 0.0)


class _Sampled(_Accepted):
    """Drafted tokens that are kept, one that is sampled, and none behind it.

    Args:
        exact, then, may, must: as in `_Accepted`, of which `exact` are tokens (B, n + 1).
        draft: (B, n).
        low, high: (B, n + 1, V) between which cumulative shares lie, where so many drafted tokens are kept.
        possible: bool (B, n + 1, V), tokens with a probability.
        uniform: (B,).
    """

    def __init__(
        self, exact: np.ndarray, then: Any, may: np.ndarray, must: np.ndarray, *, draft: np.ndarray, low: np.ndarray, high: np.ndarray,
        possible: np.ndarray, uniform: np.ndarray,
    ) -> None:  # fmt: skip
        self.draft, self.uniform = draft, uniform[:, None, None]
        before = np.concatenate([np.zeros((*low.shape[:2], 1)), low[..., :-1]], axis=-1)
        self.drawn = possible & (before <= self.uniform) & (self.uniform <= high)
        super().__init__(exact, then, may, must)
        kept = (exact != NO_TOKEN).sum(axis=1) - 1
        several = np.take_along_axis(self.drawn, kept[:, None, None], axis=1).sum(axis=-1)[:, 0] > 1
        self.near_ties = int((several | (_leading(may) != _leading(must))).sum())

    def legitimate(self, decided: np.ndarray) -> np.ndarray:
        """Some legitimate number of drafted tokens, then a token whose share of the interval holds the number, then none."""
        batch, places = decided.shape
        kept = (decided != NO_TOKEN).sum(axis=1) - 1
        right = (kept >= 0) & super().legitimate(kept)
        kept = np.where(right, kept, 0)
        behind = np.arange(places) > kept[:, None]
        right &= ((decided == NO_TOKEN) | ~behind).all(axis=1)
        right &= ((decided[:, :-1] == self.draft) | (np.arange(places - 1) >= kept[:, None])).all(axis=1)
        token = np.take_along_axis(decided, kept[:, None], axis=1)[:, 0]
        inside = (token >= 0) & (token < self.drawn.shape[-1])
        return right & inside & self.drawn[np.arange(batch), kept, np.where(inside, token, 0)]


@method(
    source="Leviathan et al. 2023, algorithm 1 and appendix A.1, arXiv:2211.17192",
    shapes="p: b m v, q: b n v, draft: int b n, u: b n, u_sample: b -> tokens: int b m",
    conventions={"ties": ("accepted", "rejected")},
    derived={"m": "n + 1"},
    domains={**SAMPLED, "u_sample": "uniform"},
    cost=COST,
    decisions="b",
)
def speculative_sampling(p: Array, q: Array, draft: np.ndarray, u: Array, u_sample: Array, *, ties: str = "accepted") -> np.ndarray:
    """Drafted tokens that are accepted, then one more: of what is left of p where one was not, else of the last row of p.

    Where draft is drawn from q, every token that comes out is distributed like p. After the a tokens of `speculative_accept`
    comes one that is drawn from the distribution of `speculative_residual` for token a or, where all n are accepted, from
    p[:, n]: the first token of it, by index, whose cumulative probability exceeds u_sample. A u_sample that rounding errors
    cannot tell from a cumulative probability may go to either side of it, but never to a token of probability 0.

    Args:
        p: probabilities of the target model after 0 to n drafted tokens (B, n + 1, V).
        q: of the draft model (B, n, V).
        draft: the drafted tokens (B, n), drawn from q by the caller.
        u: uniform random numbers in [0, 1), by which drafted tokens are accepted (B, n).
        u_sample: uniform random numbers in [0, 1), by which the last token is drawn (B,).
        ties: ``rejected``: a drafted token is accepted where u < p / q.

    Returns:
        tokens (B, n + 1): from 1 to n + 1 of them, then -1.

    Raises:
        OptionError: a token is out of range, rows are no probabilities, or a number lies outside [0, 1).
    """
    batch, drafted = draft.shape
    own, other = _of_draft(p, q, draft)
    exact, may, must = _accepts(own, other, u, ties)
    left, total = _left_over(p[:, :drafted], q)
    rows = np.concatenate([np.where(is_positive(total), left, p[:, :drafted]), p[:, drafted:]], axis=1)  # (B, n + 1, V)
    shares = _cumulative(rows)
    value, uniform, accepted = _plain(shares), _plain(u_sample), _leading(exact)
    beyond = value[np.arange(batch), accepted] > uniform[:, None]
    weights = _plain(rows)
    last = weights.shape[-1] - 1 - np.argmax(weights[np.arange(batch), accepted, ::-1] > 0, axis=-1)
    token = np.where(beyond.any(axis=-1), beyond.argmax(axis=-1), last)
    tokens = np.full((batch, drafted + 1), NO_TOKEN, dtype=np.int64)
    kept = np.arange(drafted) < accepted[:, None]
    tokens[:, :drafted][kept] = draft[kept]
    tokens[np.arange(batch), accepted] = token

    def then(decided: np.ndarray) -> tuple[np.ndarray]:
        return (decided,)

    def decision(_: Bounded) -> _Sampled:
        with np.errstate(invalid="ignore"):
            low, high = (np.nan_to_num(value + sign * shares.full_error, nan=sign * np.inf) for sign in (-1.0, 1.0))
        return _Sampled(tokens, then, may, must, draft=draft, low=low, high=high, possible=weights > 0, uniform=uniform)

    return show(own, tokens, then, decision)[0]


def _cumulative(rows: Array) -> Array:
    """Cumulative sums over the last axis, divided by the whole sum."""
    if is_balls(rows):
        rows = _plain(rows)  # what is drawn is discrete: there is nothing to enclose
    return np.cumsum(rows, axis=-1) / np.sum(rows, axis=-1, keepdims=True)


@method(
    source="Gloeckle et al. 2024, eq. 2, arXiv:2404.19737",
    shapes="hidden: b l d, heads: n d d, unembedding: d v, tokens: int b l -> logits: b n l v, loss: statistic",
    options={"reduction": ("sum", "mean")},
    domains={"tokens": "index v"},
    cost="b * n * l * (d * d + d * v)",
)
def multi_token_prediction(
    hidden: Array, heads: Array, unembedding: Array, tokens: np.ndarray, *, reduction: str = "sum"
) -> tuple[Array, Array]:
    """Several heads on one trunk, each of which predicts one of the next n tokens, and the sum of their cross-entropies.

    Head i, from 1 to n, turns the hidden state of position t into the logits of token t + i: hidden[t] heads[i] unembedding, with
    an unembedding that all share. Heads are matrices here; those of the paper are layers of a transformer. The loss is
    - sum over i and t of log softmax(logits_i[t])[tokens[t + i]], over all t and i for which there is a token t + i.

    Args:
        hidden: of the trunk (B, L, D).
        heads: (n, D, D).
        unembedding: (D, V).
        tokens: the sequence itself (B, L).
        reduction: ``mean``: over all pairs of a position and a head that have a target.

    Returns:
        logits (B, n, L, V), those without a target included, and the loss, one number; 0 where nothing has a target.

    Raises:
        OptionError: a token is out of range.
    """
    length, count = tokens.shape[1], heads.shape[0]
    logits = np.matmul(as_matrix(np.matmul(hidden[:, None], heads)), unembedding)  # (B, n, L, V)
    seen = as_stored(logits)
    losses, pairs = [], 0
    for head in range(min(count, max(length - 1, 0))):
        own = seen[:, head, : length - 1 - head]
        targets = tokens[:, 1 + head :]
        weights, shift = shifted_exponentials(own)
        surprise = logarithm(np.sum(weights, axis=-1, keepdims=True)) + shift - np.take_along_axis(own, targets[..., None], axis=-1)
        losses.append(surprise[..., 0])
        pairs += targets.size
    if not pairs:
        return logits, np.zeros(())
    loss = np.sum(np.concatenate(losses, axis=1))
    return logits, loss / pairs if reduction == "mean" else loss
