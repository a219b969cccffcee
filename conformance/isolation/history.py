"""Findings about what an implementation keeps between calls: which earlier calls bring one out.

A finding made in a process with a past may vanish in a fresh one. Then it is about state: the past that brings it out is
searched for and becomes part of the case (``calls=12``, ``CASE then CASE``), so that the case reproduces it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from conformance.cases.case import Case
from conformance.judge import Judgement

__all__ = ["Runner", "find_past", "repeat", "with_past"]

# Kinds that another past may turn into each other; the others say what happened, whenever it did.
OF_VALUES = ("wrong-value", "nan", "infinity", "unrepeatable")

# Seconds in which a thread that a call left behind may still write to its output, before the last of identical calls.
SETTLING = 0.05

# Identical calls that are tried at most, and seconds to spend on finding the past of a finding.
MOST_CALLS, PATIENCE = 500, 20.0


class Runner(Protocol):
    """What runs cases: an examiner."""

    def examine(self, case: Case) -> Judgement:
        """Judge a case, a past of its own included."""
        ...

    def run(self, case: Case, identical: int = 2) -> Judgement:
        """Run it in the process that there is."""
        ...

    def run_afresh(self, case: Case, identical: int = 2) -> Judgement:
        """Run it in a new process."""
        ...

    def alone(self, case: Case) -> Judgement:
        """What a new process makes of it, which may be remembered."""
        ...


def with_past(runner: Runner, case: Case) -> Judgement:
    """Examine a case that has a past of its own."""
    if not case.earlier:
        return repeat(runner, case, case.calls)
    own = replace(case, earlier=())
    for index, earlier in enumerate(case.earlier):
        judgement = (runner.run if index else runner.run_afresh)(replace(earlier, calls=0), earlier.calls or 2)
        if judgement.finding is not None and judgement.finding.kind not in OF_VALUES:
            return judgement  # there may be no process left to go on in
    judgement = runner.run(replace(own, calls=0))
    if judgement.finding is None:
        return replace(judgement, case=case)
    alone = runner.alone(own)
    return alone if alone.finding is not None else _after(judgement, case)


def repeat(runner: Runner, case: Case, calls: int, seconds: float = float("inf")) -> Judgement:
    """Make identical calls in a fresh process, one after the other, until one fails.

    Args:
        runner: that makes them.
        case: to call on; its finding has a case with the number of calls that it takes.
        calls: how many to make.
        seconds: to stop after.
    """
    own, until = replace(case, warm=False, calls=0, earlier=()), time.monotonic() + seconds
    judgement, made = runner.run_afresh(own), calls_of(own)
    if judgement.finding is not None:
        return at_first(runner, judgement)
    while judgement.finding is None and made < calls and time.monotonic() < until:
        if made == calls - 1:
            time.sleep(SETTLING)
        judgement = runner.run(own, identical=1)
        made += 1
    return judgement if judgement.finding is None else _after(judgement, replace(own, calls=made))


def at_first(runner: Runner, judgement: Judgement) -> Judgement:
    """The finding of a fresh process, as one about its first calls where the same calls are right when made again."""
    found, own = judgement.finding, judgement.case
    assert found is not None, "only a finding is about something"
    if found.kind not in OF_VALUES or runner.run(own).finding is not None:
        return judgement
    case = replace(own, calls=calls_of(own))
    message = f"wrong in a fresh process, but right when called again: {found.message}"
    return replace(judgement, case=case, finding=replace(found, kind="depends-on-history", case=case, message=message))


def find_past(runner: Runner, judgement: Judgement) -> Judgement:
    """The finding of a process with a past, which a fresh process does not have, with the past that it takes.

    First only the number of calls is tried, then the cases that came last before it, as few as will do.
    """
    case, past, until = judgement.case, judgement.past, time.monotonic() + PATIENCE
    calls = min(sum(map(calls_of, past)) + calls_of(case), MOST_CALLS)
    repeated = repeat(runner, case, calls, PATIENCE / 4)
    if repeated.finding is not None:
        return repeated

    def fails(earlier: Sequence[Case]) -> Judgement | None:
        found = runner.examine(replace(case, earlier=tuple(earlier)))
        return found if found.finding is not None and found.case.earlier else None

    length, found = 1, None
    while (found := fails(past[-length:])) is None and length < len(past) and time.monotonic() < until:
        length *= 2
    if found is None:
        return _not_again(judgement)
    few, enough = length // 2, min(length, len(past))
    while enough - few > 1 and time.monotonic() < until:
        middle = (few + enough) // 2
        shorter = fails(past[-middle:])
        found, few, enough = (found, middle, enough) if shorter is None else (shorter, few, middle)
    # The first of the shortest past is needed; whether the rest is will show.
    return (fails(past[-enough : len(past) - enough + 1]) if enough > 1 else None) or found


def calls_of(case: Case) -> int:
    """How many calls examining a case makes."""
    return case.calls or 2 + case.warm


def _after(judgement: Judgement, case: Case) -> Judgement:
    found = judgement.finding
    assert found is not None, "only a finding has a past"
    kind = "depends-on-history" if found.kind in OF_VALUES else found.kind
    calls = sum(map(calls_of, judgement.past))
    message = f"right in a fresh process, but after {calls} earlier calls: {found.message}"
    return replace(judgement, case=case, finding=replace(found, kind=kind, case=case, message=message), past=())


def _not_again(judgement: Judgement) -> Judgement:
    found = judgement.finding
    assert found is not None, "only a finding is looked for again"
    calls = sum(map(calls_of, judgement.past))
    kind = "unrepeatable" if found.kind in OF_VALUES else found.kind
    message = f"once, after {calls} earlier calls, and not again in a fresh process or after the same calls: {found.message}"
    return replace(judgement, finding=replace(found, kind=kind, message=message), past=())
