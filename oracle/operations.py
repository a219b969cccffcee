"""Operations on a cache of keys and values: what a serving engine does to its requests, as a script that a person can read.

    join(0,5);grow(0,1);fork(0,1);grow(1,3);swap_out(0);finish(1);swap_in(0)

``join(r,n)``: request r comes with a prompt of n tokens. ``grow(r,n)``: it gets n more. ``fork(r,c)``: request c starts as a copy
of r. ``preempt(r)``: its cache is dropped, until ``resume(r)`` gives all its tokens again. ``swap_out(r)``: its cache moves
elsewhere, until ``swap_in(r)``. ``finish(r)``: it leaves, wherever it is, and its number may be used again.

Tokens are numbered in the order in which they come, whoever gets them, so the history of a request is a list of numbers.

Of a prompt of more than `MOST_ASKED` tokens only the last one asks, as where the prompt was read elsewhere: what is wrong with thousands
of tokens is wrong with where they lie, and to ask with each of them costs the square of their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from oracle.options import OptionError

__all__ = [
    "MOST_ASKED", "VERBS", "Moment", "Operation", "Row", "count_tokens", "join_operations", "parse_operations", "play", "possible", "rows",
]  # fmt: skip

# What each operation needs its request to be, and makes of it.
VERBS: dict[str, tuple[tuple[str, ...], str]] = {
    "join": (("absent",), "resident"),
    "grow": (("resident",), "resident"),
    "fork": (("resident",), "resident"),
    "preempt": (("resident",), "preempted"),
    "resume": (("preempted",), "resident"),
    "swap_out": (("resident",), "swapped out"),
    "swap_in": (("swapped out",), "resident"),
    "finish": (("resident", "preempted", "swapped out"), "absent"),
}

MOST_ASKED = 600
"""Tokens of one operation that all ask; where more come at once, the last one does."""

COUNTING = ("join", "grow")  # their number counts tokens; that of fork names the copy

_OPERATION = re.compile(r"^(\w+)\((\d+)(?:,(\d+))?\)$")


@dataclass(frozen=True)
class Operation:
    """One operation on one request; `number` is that of its tokens, of the copy for ``fork``, None for the others."""

    verb: str
    request: int
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.verb}({self.request})" if self.number is None else f"{self.verb}({self.request},{self.number})"


@dataclass(frozen=True)
class Moment:
    """What is true after an operation.

    Attributes:
        step: position of the operation in the script.
        operation: itself.
        fed: the tokens that it brought, as a range of numbers.
        histories: the tokens of every request that is not absent, in the order in which they joined.
        states: whether each of these is resident, preempted or swapped out.
    """

    step: int
    operation: Operation
    fed: range
    histories: dict[int, list[int]]
    states: dict[int, str]

    @property
    def resident(self) -> list[int]:
        """The requests whose tokens are in the cache."""
        return [request for request, state in self.states.items() if state == "resident"]

    def newest(self, request: int) -> int:
        """For how many of its last tokens a request asks now: those that the operation brought it, or, if none or too many, the last."""
        return len(self.fed) if self.fed and len(self.fed) <= MOST_ASKED and request == self.operation.request else 1

    @property
    def rows(self) -> list[Row]:
        """The queries that are asked now: those of the newest tokens of every resident request."""
        made = []
        for request in self.resident:
            history = tuple(self.histories[request])
            made += [Row(self.step, request, history[: len(history) - later]) for later in range(self.newest(request) - 1, -1, -1)]
        return made


@dataclass(frozen=True)
class Row:
    """One query: the last of some tokens of a request, which reads all of them.

    Attributes:
        step: position of the operation after which it is asked.
        request: whose query.
        tokens: the history that it may read, its own token last.
    """

    step: int
    request: int
    tokens: tuple[int, ...]


def parse_operations(text: str) -> tuple[Operation, ...]:
    """Read a script.

    Raises:
        OptionError: a part is no operation, or is not possible where it stands.
    """
    operations = tuple(_parse(part) for part in text.split(";"))
    for _ in play(operations):
        pass
    return operations


def _parse(part: str) -> Operation:
    match = _OPERATION.match(part)
    wanted = "but should be one of join(r,n), grow(r,n), fork(r,c), preempt(r), resume(r), swap_out(r), swap_in(r), finish(r)"
    if match is None or match[1] not in VERBS or (match[3] is not None) != (match[1] in (*COUNTING, "fork")):
        raise OptionError(f"operation {part!r}, {wanted}")
    return Operation(match[1], int(match[2]), None if match[3] is None else int(match[3]))


def join_operations(operations: Iterable[Operation]) -> str:
    """The text of a script."""
    return ";".join(map(str, operations))


def play(operations: Iterable[Operation]) -> Iterator[Moment]:
    """What is true after each operation.

    Raises:
        OptionError: an operation is not possible where it stands.
    """
    histories: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    tokens = 0
    for step, operation in enumerate(operations):
        if (reason := _impossible(operation, states)) is not None:
            raise OptionError(f"operations[{step}]={operation}, {reason}")
        fed = range(tokens, tokens + (operation.number or 0)) if operation.verb in COUNTING else range(0)
        tokens += len(fed)
        _apply(operation, fed, histories, states)
        yield Moment(step, operation, fed, {request: list(history) for request, history in histories.items()}, dict(states))


def _impossible(operation: Operation, states: dict[int, str]) -> str | None:
    state, (wanted, _) = states.get(operation.request, "absent"), VERBS[operation.verb]
    if state not in wanted:
        return f"but request {operation.request} should be {' or '.join(wanted)} and is {state}"
    if operation.verb in COUNTING and not operation.number:
        return "but should bring at least 1 token"
    if operation.verb == "fork" and operation.number in states:
        return f"but request {operation.number} should be absent and is {states[operation.number]}"
    return None


def _apply(operation: Operation, fed: range, histories: dict[int, list[int]], states: dict[int, str]) -> None:
    request, verb = operation.request, operation.verb
    if verb == "finish":
        del histories[request], states[request]
        return
    states[request] = VERBS[verb][1]
    histories[request] = [*histories.get(request, []), *fed]
    if verb == "fork":
        assert operation.number is not None, "a fork names the copy"
        histories[operation.number], states[operation.number] = list(histories[request]), "resident"


def possible(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """A script without the operations that are not possible where they stand."""
    kept: list[Operation] = []
    histories: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for operation in operations:
        if _impossible(operation, states) is None:
            _apply(operation, range(0), histories, states)
            kept.append(operation)
    return tuple(kept)


def count_tokens(operations: Iterable[Operation]) -> int:
    """How many tokens a script brings."""
    return sum(operation.number or 0 for operation in operations if operation.verb in COUNTING)


@lru_cache(maxsize=256)
def rows(text: str) -> tuple[Row, ...]:
    """Every query of a script, operation by operation."""
    return tuple(row for moment in play(parse_operations(text)) for row in moment.rows)
