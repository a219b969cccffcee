"""What an implementation may have meant: conventions of meaning and of calling under which it would be right.

Another meaning is a matter for the oracle; another way of calling takes calls. Each is held against the failing cases
and against passing ones, and named, never guessed into a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import permutations

from conformance.cases.case import Case
from conformance.cases.shapes import WIDTH_LETTERS
from conformance.diagnosis.evidence import MISCALLED, Claim, Evidence
from conformance.judge import Judgement
from conformance.registry import CALLING_CONVENTIONS, Implementation, conventions_of
from oracle import get_method

__all__ = ["Call", "all_called", "all_rejudged", "called_otherwise", "meant_otherwise", "two_declared"]

# Judges a case of the implementation, declared otherwise.
Call = Callable[[Implementation, Case], Judgement]

# Cases of either kind on which another way of calling must work, and how many of them must tell the axes apart.
TRIED, ENOUGH = 8, 3

# Failing cases that tell whether a second convention is worth looking for beside a first, and cases that it is held against.
GLANCE, HELD_AGAINST = 6, 20


def _followed(name: str, value: str) -> Claim:
    return Claim(f"follows convention {name}={value}", f"--convention {name}={value}")


def _ways_of_calling(implementation: Implementation) -> Iterator[tuple[Claim, Implementation]]:
    method = get_method(implementation.method)
    for name, values in conventions_of(method).items():
        if name in CALLING_CONVENTIONS and "mask" in implementation.options:
            for value in values:
                if value != implementation.conventions.get(name, values[0]):
                    yield _followed(name, value), implementation.declaring(conventions={name: value})
    own = method.signature.required[0].dims if method.signature.required else ()
    if len(own) < 2 or own[-1] not in WIDTH_LETTERS:  # no axes that a layout could order otherwise
        return
    declared = tuple((implementation.layout or " ".join(own)).split())
    *outer, width = own
    for order in (*((*order, width) for order in permutations(outer)), (*outer[:-1], width, outer[-1])):
        if order != declared:
            layout = " ".join(order)
            yield Claim(f"agrees when called with layout '{layout}'", f"--layout '{layout}'"), implementation.declaring(layout=layout)


def _other_meanings(evidence: Evidence) -> Iterator[tuple[Claim, dict[str, str]]]:
    for name, values in get_method(evidence.implementation.method).conventions.items():
        for value in values:
            if value != evidence.meaning.get(name, values[0]):
                yield _followed(name, value), {**evidence.meaning, name: value}


def called_otherwise(evidence: Evidence, call: Call) -> Iterator[Claim]:
    """Ways of calling under which everything is right."""
    failing = sorted(evidence.failing, key=_telling)[:TRIED]
    for claim, variant in _ways_of_calling(evidence.implementation):
        # Where two axes have one size, another order of them may pass for the right one.
        if variant.layout != evidence.implementation.layout and sum(_tells_axes_apart(judgement.case) for judgement in failing) < ENOUGH:
            continue
        if all(call(variant, judgement.case).finding is None for judgement in [*failing, *evidence.passing[:TRIED]]):
            yield claim


def meant_otherwise(evidence: Evidence) -> Iterator[Claim]:
    """Meanings by which everything is right."""
    for claim, meaning in _other_meanings(evidence):
        other = evidence.meaning_instead(meaning)
        if all(other.agrees(judgement) for judgement in [*evidence.failing, *evidence.passing]):
            yield claim


def two_declared(evidence: Evidence, call: Call, until: float) -> Iterator[tuple[Claim, Claim]]:
    """Pairs of conventions under which everything is right, a way of calling first.

    Args:
        evidence: what there is to explain.
        call: judges a case of the implementation, declared otherwise.
        until: process time at which to give up.
    """
    for claim, variant in _ways_of_calling(evidence.implementation):
        if time.process_time() < until:
            yield from ((claim, second) for second in _meant_when_called(evidence, variant, call))
    for claim, called in all_called(evidence, call, until):
        yield from ((claim, second) for second in called_otherwise(called, call))
    for claim, rejudged in all_rejudged(evidence, until):
        yield from ((claim, second) for second in meant_otherwise(rejudged))


def _meant_when_called(evidence: Evidence, variant: Implementation, call: Call) -> Iterator[Claim]:
    """Meanings that fit when the implementation is called otherwise; either may show in most cases, so both are tried at once."""
    rest = (*evidence.failing[:HELD_AGAINST], *evidence.passing[:HELD_AGAINST])
    glance = [call(variant, judgement.case) for judgement in _glanced_at(evidence)]
    called = Evidence(variant, variant.meaning, evidence.contract, [], [])
    for claim, meaning in _other_meanings(called):
        other = called.meaning_instead(meaning)
        if all(map(other.agrees, glance)) and all(other.agrees(call(variant, judgement.case)) for judgement in rest):
            yield claim


def all_called(evidence: Evidence, call: Call, until: float) -> Iterator[tuple[Claim, Evidence]]:
    """What is left to explain when the implementation is called otherwise, for each way that explains some cases."""
    for claim, variant in _ways_of_calling(evidence.implementation):
        if time.process_time() > until or all(call(variant, judgement.case).finding is not None for judgement in _glanced_at(evidence)):
            continue
        passing = [call(variant, judgement.case) for judgement in evidence.passing[:HELD_AGAINST]]
        if all(judgement.finding is None for judgement in passing):
            judged = [call(variant, judgement.case) for judgement in evidence.failing[:HELD_AGAINST]]
            called = _sorted(Evidence(variant, variant.meaning, evidence.contract, [], []), [*judged, *passing])
            if called is not None:
                yield claim, called


def all_rejudged(evidence: Evidence, until: float) -> Iterator[tuple[Claim, Evidence]]:
    """What is left to explain by another meaning, for each that explains some cases."""
    for claim, meaning in _other_meanings(evidence) if evidence.numerical else ():
        other = evidence.meaning_instead(meaning)
        if time.process_time() > until or not any(map(other.agrees, evidence.failing[:GLANCE])):
            continue
        if all(map(other.agrees, evidence.passing)):
            judged = [replace(judgement, wanted=other.wanted(judgement)) for judgement in evidence.failing]
            rejudged = _sorted(other, [replace(one, finding=None) if other.agrees(one) else one for one in judged] + evidence.passing)
            if rejudged is not None:
                yield claim, rejudged


def _sorted(evidence: Evidence, judgements: Iterable[Judgement]) -> Evidence | None:
    """Evidence with cases as they fail and pass; None where none fails, or one in a way that no convention explains."""
    cases = list(judgements)
    failing = [judgement for judgement in cases if judgement.finding is not None]
    if not failing or not all(judgement.finding is not None and judgement.finding.kind in MISCALLED for judgement in failing):
        return None
    passing = [judgement for judgement in cases if judgement.finding is None]
    return replace(evidence, failing=sorted(failing, key=lambda judgement: judgement.case.size), passing=passing)


def _glanced_at(evidence: Evidence) -> list[Judgement]:
    """A few failing cases that tell axes apart, with a mask and without."""
    failing = sorted(evidence.failing, key=_telling)
    return [*failing[: GLANCE // 2], *sorted(failing, key=lambda judgement: "mask" in judgement.case.arrays)[: GLANCE // 2]]


def _telling(judgement: Judgement) -> tuple[bool, bool]:
    """Sorts the most telling cases first: those with a mask, and with axes of different sizes."""
    return "mask" not in judgement.case.arrays, not _tells_axes_apart(judgement.case)


def _tells_axes_apart(case: Case) -> bool:
    required = case.specification.signature.required
    sizes = [case.dims[axis] for axis in required[0].dims[:-1]] if required else []
    return len(set(sizes)) == len(sizes) and 0 not in sizes
