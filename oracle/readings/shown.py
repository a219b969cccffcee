"""Discrete decisions that an output shows: which experts a token got, which tokens were chosen, how many were accepted.

As for every discrete decision (`oracle.readings.decisions`), what a computation in floating point decides may differ from the
exact outcome where rounding errors reach that far, and the numbers have to be right for what was decided. Where an output
tells the decision, no other outcome has to be tried: the judge reads it there, asks whether it is legitimate, and evaluates
what follows from it. That serves any number of near ties. A row whose decision is not legitimate is held against the exact one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

import numpy as np

from oracle.readings.balls import is_balls
from oracle.readings.bounded import Bounded

__all__ = ["Decision", "Interval", "Ranking", "ShownOutput", "classes", "closed_above", "ranked", "show"]

Then = Callable[[np.ndarray], tuple[Any, ...]]


class Decision:
    """A discrete decision with what follows from it, in the budget reading.

    Attributes:
        exact: what the exact computation decides, as the output shows it.
        position: of that output among those of the specification.
        near_ties: rows in which another outcome is legitimate.
    """

    def __init__(self, exact: np.ndarray, then: Then, near_ties: int, position: int = 0) -> None:
        self.exact, self.position, self.near_ties = exact, position, near_ties
        self._then = then
        self._last: tuple[bytes, tuple[Bounded, ...]] = (b"", ())

    def legitimate(self, decided: np.ndarray) -> np.ndarray:
        """Which rows of an output show a legitimate outcome: bool, the first axes of the output."""
        raise NotImplementedError

    def settled(self, decided: np.ndarray) -> np.ndarray:
        """The decision, with the exact outcome in rows where another is not legitimate."""
        if decided.shape != self.exact.shape:
            return self.exact
        rows = self.legitimate(decided)
        return np.where(rows.reshape(rows.shape + (1,) * (decided.ndim - rows.ndim)), decided, self.exact)

    def outputs(self, decided: np.ndarray) -> tuple[Bounded, ...]:
        """All outputs given a decision that an implementation has taken, or the exact one where that is not legitimate."""
        settled = self.settled(decided)
        key = settled.tobytes()
        if self._last[0] != key or not self._last[1]:
            made = self._then(settled)
            contract = next((one.contract for one in made if isinstance(one, Bounded)), None)
            # An output that is no floating-point number has no error.
            self._last = key, tuple(one if isinstance(one, Bounded) else Bounded(one, np.zeros(()), contract) for one in made)  # type: ignore[arg-type]
        return self._last[1]


class ShownOutput(Bounded):
    """An output under the exact decision, with that decision.

    Attributes:
        decision: shared by all outputs of a call.
        position: of this output among those of the specification.
    """

    __slots__ = ("decision", "position")

    decision: Decision
    position: int

    @classmethod
    def of(cls, output: Bounded, decision: Decision, position: int) -> ShownOutput:
        """An output that knows its decision."""
        made = cls(output.value, output.error, output.contract, output.operand)
        made.decision, made.position = decision, position
        return made


def show(scores: Any, exact: np.ndarray, then: Then, decision: Callable[[Bounded], Decision]) -> tuple[Any, ...]:
    """Go on with a decision that one of the outputs shows.

    Args:
        scores: what is decided by, in any reading.
        exact: the exact outcome.
        then: from an outcome to all outputs; rows are independent of each other.
        decision: from the scores in the budget reading to the decision with its legitimate outcomes.
    """
    if not isinstance(scores, Bounded):
        return then(exact)
    made = decision(scores)
    return tuple(ShownOutput.of(output, made, position) for position, output in enumerate(made.outputs(exact)))


def ranked(scores: Any, candidates: np.ndarray) -> np.ndarray:
    """All indices (..., m) by falling score, of equal scores the lower first; those that are no candidates last."""
    allowed = np.broadcast_to(candidates, scores.shape)
    if not is_balls(scores):
        with np.errstate(invalid="ignore"):
            falling = np.where(allowed, -getattr(scores, "value", scores), np.inf)
        return np.argsort(falling, axis=-1, kind="stable")
    order = np.zeros(scores.shape, dtype=np.int64)
    for index in np.ndindex(scores.shape[:-1]):
        row = scores[index]

        def before(i: int, j: int, row: np.ndarray = row) -> int:  # what cannot be told apart at the working precision is equal
            return -1 if row[i] > row[j] else 1 if row[j] > row[i] else i - j

        inside = sorted(np.flatnonzero(allowed[index]).tolist(), key=cmp_to_key(before))
        order[index] = [*inside, *np.flatnonzero(~allowed[index]).tolist()]
    return order


def classes(*inputs: np.ndarray) -> np.ndarray:
    """Numbers (..., m) that are equal within a row exactly where all inputs (..., m) are.

    What every machine computes in the same way from equal inputs comes out equal on all of them, whatever its rounding errors.
    """
    inputs = tuple(np.broadcast_to(one, np.broadcast_shapes(*(other.shape for other in inputs))) for one in inputs)
    order = np.lexsort(inputs, axis=-1)
    if order.shape[-1] == 0:
        return np.zeros(order.shape, dtype=np.int64)
    placed = [np.take_along_axis(one, order, axis=-1) for one in inputs]
    rises = np.any([one[..., 1:] != one[..., :-1] for one in placed], axis=0)
    numbers = np.concatenate([np.zeros((*order.shape[:-1], 1), np.int64), np.cumsum(rises, axis=-1)], axis=-1)
    made = np.empty_like(numbers)
    np.put_along_axis(made, order, numbers, axis=-1)
    return made


class Interval:
    """Scores with their bounds, and which of them are equal on every machine.

    Attributes:
        low, high: (..., m), between which a computed score lies.
        alike: (..., m) numbers, equal for scores that are equal on every machine.
    """

    def __init__(self, scores: Bounded, alike: np.ndarray | None = None) -> None:
        value, error = scores.value, scores.full_error
        with np.errstate(invalid="ignore"):
            self.low = np.nan_to_num(value - error, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
            self.high = np.nan_to_num(value + error, nan=np.inf, posinf=np.inf, neginf=-np.inf)
        self.alike = np.broadcast_to(np.arange(value.shape[-1]), value.shape) if alike is None else alike

    def precedes(self, first: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether one candidate of each row, (..., 1), may come before others of it, (..., n)."""
        high, own = (np.take_along_axis(one, first, axis=-1) for one in (self.high, self.alike))
        low, alike = (np.take_along_axis(one, others, axis=-1) for one in (self.low, self.alike))
        return np.where(own == alike, first <= others, (high > low) | ((high == low) & (first < others)))


def closed_above(scores: Interval, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which candidates every legitimate choice holds that holds the members (..., m), and the relation (..., m, m) that says so.

    Candidate i must precede j where no scores within the bounds put j first.
    """
    every = np.broadcast_to(np.arange(members.shape[-1]), members.shape)
    may = np.stack([scores.precedes(every[..., j : j + 1], every) for j in range(members.shape[-1])], axis=-2)  # may[j, i]: j before i
    must = ~np.swapaxes(may, -1, -2)  # must[i, j]: j may not come before i
    return members | (must & members[..., None, :]).any(axis=-1), must


class Ranking(Decision):
    """The largest scores of a row in falling order, as indices (..., k).

    Args:
        scores: (..., m).
        exact, then: as in `Decision`.
        alike: from `classes`; None where no two scores are equal on every machine.
        admitted: from indices (..., k) that are distinct and in range to the candidates (..., m) that compete with them, and to
            whether any legitimate earlier decision admits all of them (...); by default all are candidates.
    """

    def __init__(
        self, scores: Bounded, exact: np.ndarray, then: Then, *, alike: np.ndarray | None = None,
        admitted: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None, near_ties: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.scores = Interval(scores, alike)
        self._admitted = admitted or (lambda order: (np.ones(scores.shape, bool), np.ones(scores.shape[:-1], bool)))
        ties = self._exchangeable(exact)
        super().__init__(exact, then, int((ties if near_ties is None else ties | near_ties).sum()))

    def legitimate(self, decided: np.ndarray) -> np.ndarray:
        """Rows whose order some scores within the bounds have.

        Each candidate in turn gets the largest score that its bounds and those before it leave: that leaves the most to those
        behind it. Scores that are equal on every machine equal everything between them, which is then ordered by index.
        """
        size = self.scores.low.shape[-1]
        inside = ((decided >= 0) & (decided < size)).all(axis=-1)
        order = np.where(inside[..., None], decided, self.exact).astype(np.int64)
        candidates, admitted = self._admitted(order)
        distinct = (np.diff(np.sort(order, axis=-1), axis=-1) != 0).all(axis=-1)
        right = inside & distinct & admitted & np.take_along_axis(candidates, order, axis=-1).all(axis=-1)
        return right & self._in_order(order, candidates) & self._ties_in_order(order, candidates)

    def _in_order(self, order: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Whether scores within the bounds fall in this order and none that is left out exceeds them."""
        low, high = (np.take_along_axis(one, order, axis=-1) for one in (self.scores.low, self.scores.high))
        right = np.ones(order.shape[:-1], dtype=bool)
        largest, reached = np.full(right.shape, np.inf), np.ones(right.shape, dtype=bool)  # all below it, or it as well
        before = np.full(right.shape, -1)
        for place in range(order.shape[-1]):
            own = order[..., place]
            reached = (high[..., place] < largest) | (reached & (before < own))
            largest = np.minimum(largest, high[..., place])
            right &= (low[..., place] < largest) | ((low[..., place] == largest) & reached)
            before = own
        left = candidates.copy()
        np.put_along_axis(left, order, False, axis=-1)
        alike = (self.scores.alike[..., None, :] == np.take_along_axis(self.scores.alike, order, axis=-1)[..., None]).any(axis=-2)
        behind = reached[..., None] & (before[..., None] < np.arange(left.shape[-1]))
        under = (self.scores.low < largest[..., None]) | ((self.scores.low == largest[..., None]) & behind)
        return right & (under | ~left | alike).all(axis=-1)

    def _ties_in_order(self, order: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Whether scores that are equal on every machine, and what stands between them, are ordered by index."""
        size, count = self.scores.low.shape[-1], order.shape[-1]
        kinds, every = np.take_along_axis(self.scores.alike, order, axis=-1), np.arange(size)
        left = candidates.copy()
        np.put_along_axis(left, order, False, axis=-1)
        right = np.ones(order.shape[:-1], dtype=bool)
        reach = np.full(right.shape, -1)  # the last place of a score that equals one before it
        out = np.full(right.shape, size)  # the first candidate that is left out although it equals a chosen one
        for place in range(count):
            own = kinds[..., place, None]
            out = np.minimum(out, np.where(left & (self.scores.alike == own), every, size).min(axis=-1, initial=size))
            reach = np.maximum(reach, np.where(kinds == own, np.arange(count), -1).max(axis=-1))
            reach = np.where(out < size, count - 1, reach)
            if place + 1 < count:
                right &= (reach <= place) | (order[..., place] < order[..., place + 1])
            else:
                right &= order[..., place] < out
        return right

    def _exchangeable(self, exact: np.ndarray) -> np.ndarray:
        """Rows in which some candidate may come before one that precedes it."""
        candidates, _ = self._admitted(exact)
        ties, left, every = np.zeros(exact.shape[:-1], dtype=bool), candidates.copy(), np.arange(candidates.shape[-1])
        for place in range(exact.shape[-1]):
            own = exact[..., place, None]
            np.put_along_axis(left, own, False, axis=-1)
            low, alike = (np.take_along_axis(one, own, axis=-1) for one in (self.scores.low, self.scores.alike))
            earlier = (self.scores.high > low) | ((self.scores.high == low) & (every < own))
            ties |= (left & (self.scores.alike != alike) & earlier).any(axis=-1)
        return ties
