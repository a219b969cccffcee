"""Discrete decisions: the largest of some scores, and what follows from choosing them.

A computation in floating point may choose otherwise than the exact one where two scores are closer than its rounding errors.
Either choice is then legitimate, but the numbers have to be right for the choice that was made. So a decision is judged in two
steps: `decide` evaluates what follows under the exact choice and, in the budget reading, remembers the other legitimate
choices, each of which is evaluated the first time that an output does not fit the ones before it.

Rows are independent: each is judged under its own choice. A row with more than `ALTERNATIVES` of them has none evaluated;
what follows is evaluated once more with a budget that is wide enough for all (`Choice.open` tells the specification where).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np

from oracle.readings.balls import is_balls
from oracle.readings.bounded import Bounded

__all__ = ["ALTERNATIVES", "Choice", "Undecided", "Worlds", "decide", "equal_weights"]

# Legitimate choices of a row that are evaluated one by one, the exact one not counted.
ALTERNATIVES = 12

# Subsets that are looked at to find these, and undecided candidates from which they are formed.
SUBSETS, CANDIDATES = 400, 256


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        members: bool (..., m), True for the chosen candidates.
        open: bool (..., m): candidates that may be chosen or not, in rows with too many legitimate choices to evaluate each.
            What follows needs a budget there that holds for all of them. None where there are no such rows.
    """

    members: np.ndarray
    open: np.ndarray | None = None


def decide(
    scores: Any, count: int | np.ndarray, candidates: np.ndarray, then: Callable[[Choice], Any], exact: np.ndarray | None = None
) -> Any:
    """Choose the candidates with the largest scores and go on with them.

    Args:
        scores: (..., m) in any reading.
        count: how many to choose, one number or one for each row (...); all candidates where there are fewer.
        candidates: bool, broadcastable to the scores: which of them may be chosen.
        then: from the choice to the output, or a tuple of outputs. Each row of the outputs depends on its own row of the choice.
        exact: bool (...), rows whose scores every machine computes without error, whatever their bounds say.

    Returns:
        What ``then`` returns for the largest scores, of equal ones those with the lower index. In the budget reading, outputs
        that know the other legitimate choices.
    """
    allowed = np.broadcast_to(candidates, scores.shape)
    counts = np.minimum(np.broadcast_to(count, scores.shape[:-1]), allowed.sum(axis=-1))
    if is_balls(scores):
        return then(Choice(_certainly_largest(scores, counts, allowed)))
    if not isinstance(scores, Bounded):
        return then(Choice(_largest(getattr(scores, "value", scores), counts, allowed)))
    error = scores.full_error if exact is None else np.where(exact[..., None], 0.0, scores.full_error)
    choice = Choice(_largest(scores.value, counts, allowed))
    outputs = then(choice)
    others = _others(scores.value, error, allowed, choice.members)
    if not others:
        return outputs
    worlds = Worlds(choice, others, then)
    if isinstance(outputs, tuple):
        return tuple(Undecided.of(output, worlds, position) for position, output in enumerate(outputs))
    return Undecided.of(outputs, worlds, 0)


def equal_weights(scores: Any) -> np.ndarray:
    """Rows (...) of masked scores (..., n) whose softmax is free of error on every machine.

    Those are the rows in which all scores that take part are zeros without error and their number is a power of two: each
    weight is exp(0) = 1, their sum and its reciprocal are exact, and so is every sum of a few of them. In other readings none.
    """
    if not isinstance(scores, Bounded):
        return np.zeros(scores.shape[:-1], dtype=bool)
    part = scores.value > -np.inf
    number = part.sum(axis=-1)
    exact = (~part | ((scores.value == 0) & (scores.full_error == 0))).all(axis=-1)
    return exact & (number & (number - 1) == 0)


def _largest(scores: np.ndarray, counts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Members of the exact choice; of equal scores the lower index comes first."""
    with np.errstate(invalid="ignore"):
        falling = np.where(candidates, -scores, np.inf)
    order = np.argsort(falling, axis=-1, kind="stable")
    first = np.arange(scores.shape[-1]) < counts[..., None]
    members = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(members, order, np.broadcast_to(first, scores.shape), axis=-1)
    return members & candidates


def _certainly_largest(scores: np.ndarray, counts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """As `_largest`, of balls: scores that cannot be told apart at the working precision count as equal."""

    def first(row: np.ndarray) -> Callable[[int, int], int]:
        return lambda i, j: -1 if row[i] > row[j] else 1 if row[j] > row[i] else i - j

    members = np.zeros(scores.shape, dtype=bool)
    for index in np.ndindex(scores.shape[:-1]):
        order = sorted(np.flatnonzero(candidates[index]).tolist(), key=cmp_to_key(first(scores[index])))
        members[index][order[: counts[index]]] = True
    return members


@dataclass(frozen=True)
class _Row:
    """The other legitimate choices of one row.

    Attributes:
        index: of the row.
        sets: members (m,) of each; none where there are too many.
        free: bool (m,), the candidates that some choice holds and another does not.
    """

    index: tuple[int, ...]
    sets: Sequence[np.ndarray]
    free: np.ndarray


def _others(values: np.ndarray, error: np.ndarray, candidates: np.ndarray, members: np.ndarray) -> list[_Row]:
    with np.errstate(invalid="ignore"):
        low, high = values - error, values + error
    least = np.where(members, low, np.inf).min(axis=-1, initial=np.inf)
    most = np.where(candidates & ~members, high, -np.inf).max(axis=-1, initial=-np.inf)
    close = ~(least > most) & (np.where(candidates, error, 0.0) > 0).any(axis=-1)  # NaN decides nothing
    found = []
    for place in np.argwhere(close):
        index = tuple(place.tolist())
        row = _other_sets(index, values[index], error[index], candidates[index], members[index])
        if row is not None:
            found.append(row)
    return found


def _other_sets(index: tuple[int, ...], values: np.ndarray, error: np.ndarray, candidates: np.ndarray, members: np.ndarray) -> _Row | None:
    """The legitimate choices of a row besides the exact one; None where there are none."""
    with np.errstate(invalid="ignore"):
        low, high = np.nan_to_num(values - error, nan=-np.inf), np.nan_to_num(values + error, nan=np.inf, posinf=np.inf)
    count = int(members.sum())
    listed = np.flatnonzero(candidates)
    # Certain are those that fewer than `count` others may precede, and those that so many others must precede.
    may_precede = len(listed) - np.searchsorted(np.sort(high[listed]), low, side="left") - 1
    must_precede = len(listed) - np.searchsorted(np.sort(low[listed]), high, side="right")
    free = candidates & (may_precede >= count) & (must_precede < count)
    chosen = np.flatnonzero(free)
    if len(chosen) <= CANDIDATES:
        must = low[chosen][:, None] > high[chosen]
        same = (values[chosen][:, None] == values[chosen]) & (error[chosen][:, None] + error[chosen] == 0)
        must |= same & (chosen[:, None] < chosen)
        left = count - int((members & ~free).sum())
        before, after = must.sum(axis=0), must.sum(axis=1)
        kept = (before < left) & (after < len(chosen) - left)
        left -= int((after >= len(chosen) - left).sum())
        free[chosen[~kept]] = False
        chosen, must = chosen[kept], must[np.ix_(kept, kept)]
        if len(chosen) == 0 or left in (0, len(chosen)):
            return None
        if comb(len(chosen), left) <= SUBSETS:
            certain = members & ~free
            sets = list(islice(_legitimate(chosen, must, left, certain, members, values), ALTERNATIVES + 1))
            if len(sets) <= ALTERNATIVES:
                return _Row(index, sets, free) if sets else None
    return _Row(index, (), free)


def _legitimate(
    chosen: np.ndarray, must: np.ndarray, left: int, certain: np.ndarray, members: np.ndarray, values: np.ndarray
) -> Iterator[np.ndarray]:
    """Sets that hold everything that must precede one of their members, those of large scores first."""
    order = np.lexsort((chosen, -values[chosen]))
    for subset in combinations(order, left):
        inside = np.zeros(len(chosen), dtype=bool)
        inside[list(subset)] = True
        if not must[~inside][:, inside].any():
            found = certain.copy()
            found[chosen[inside]] = True
            if not np.array_equal(found, members):
                yield found


class Worlds:
    """The outputs under every legitimate choice but the exact one, each evaluated when it is asked for.

    Attributes:
        near_ties: rows in which another choice is legitimate.
    """

    def __init__(self, choice: Choice, rows: Sequence[_Row], then: Callable[[Choice], Any]) -> None:
        self._choice, self._rows, self._then = choice, rows, then
        self._known: dict[int, tuple[Bounded, ...]] = {}
        self.near_ties = len(rows)
        self._most = max(len(row.sets) for row in rows)

    def __len__(self) -> int:
        return self._most + any(not row.sets for row in self._rows)

    def widened(self, number: int) -> np.ndarray | None:
        """Rows, bool (...), in which the budget of a world holds for all choices, because they are too many; None for no row."""
        opened = self._choice_in(number).open
        return None if opened is None else np.any(opened, axis=-1, keepdims=False)

    def outputs(self, number: int) -> tuple[Bounded, ...]:
        """The outputs in one world; in a row with fewer choices, those of the exact one."""
        if number not in self._known:
            made = self._then(self._choice_in(number))
            self._known[number] = made if isinstance(made, tuple) else (made,)
        return self._known[number]

    def _choice_in(self, number: int) -> Choice:
        if number == self._most:
            opened = np.zeros(self._choice.members.shape, dtype=bool)
            for row in self._rows:
                if not row.sets:
                    opened[row.index] = row.free
            return Choice(self._choice.members, opened)
        members = self._choice.members.copy()
        for row in self._rows:
            if number < len(row.sets):
                members[row.index] = row.sets[number]
        return Choice(members)


class Undecided(Bounded):
    """An output under the exact choice, with what it would be under the others.

    Attributes:
        worlds: the others.
        position: of this output among those of the specification.
        split, reduced: how to find the rows of the decision in an output: reshape it to ``split`` and combine the axes ``reduced``.
    """

    __slots__ = ("position", "reduced", "split", "worlds")

    worlds: Worlds
    position: int
    split: tuple[int, ...]
    reduced: tuple[int, ...]

    @classmethod
    def of(cls, output: Bounded, worlds: Worlds, position: int) -> Undecided:
        """An output that knows its other worlds."""
        made = cls(output.value, output.error, output.contract, output.operand)
        made.worlds, made.position = worlds, position
        made.split, made.reduced = output.shape, ()
        return made

    def set_rows(self, dims: Sequence[str], decided: Sequence[str], sizes: Mapping[str, int]) -> None:
        """Find the rows of the decision by the names of the dimensions.

        Args:
            dims: of this output. Query heads ``h`` are divided among the key/value heads ``g``, where these decide.
            decided: of the rows of the decision, in the order in which they come in ``dims``.
            sizes: of all of them.
        """
        split: list[int] = []
        reduced: list[int] = []
        for dim in dims:
            if dim == "h" and "g" in decided and "h" not in decided:
                split += [sizes["g"], sizes["h"] // max(sizes["g"], 1)]
                reduced.append(len(split) - 1)
            else:
                split.append(sizes[dim])
                reduced += [] if dim in decided else [len(split) - 1]
        self.split, self.reduced = tuple(split), tuple(reduced)

    def other(self, number: int) -> Bounded:
        """This output in another world."""
        return self.worlds.outputs(number)[self.position]
