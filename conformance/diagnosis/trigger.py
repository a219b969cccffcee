"""The trigger of a failure: the plainest statement about a case under which it was ever seen to happen.

From the shrunk case one respect is varied at a time; the condition that fits what failed and passed is then put to the
test with further probes, each of which breaks one part of it. A condition never excludes a case that failed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from conformance.cases.case import Case
from conformance.diagnosis.atoms import INSIDE, INSIDE_NEAR, NEGLIGIBLE, Atom, Table, fit, rivals
from conformance.diagnosis.elements import wrong_elements
from conformance.diagnosis.facts import VALUES, Facts
from conformance.diagnosis.neighbours import neighbours
from conformance.diagnosis.shrink import CLEAR
from conformance.judge import Finding, Judgement
from conformance.registry import Implementation
from oracle.conditions import condition_names

__all__ = ["Limits", "Trigger", "find_trigger"]

# Kinds of finding that one mistake may take by turns.
ALIKE = ("wrong-value", "nan", "infinity", "unrepeatable")

LETTERS = {
    "b": "batch", "h": "query heads", "g": "key/value heads", "l": "query length", "s": "key length", "d": "query/key width",
    "e": "value width", "n": "parts",
}  # fmt: skip

# Rounds of probes that put a condition to the test, and probes of a round.
ROUNDS, TESTS = 4, 12

# Cases that failed from which such probes start, besides the shrunk one.
BASES = 4

# Neighbours of each that are looked at.
SCANNED = 80

# Arrays whose gain scales the magnitudes, but for that of the values.
SCALING = ("q", "lses")

# A condition is worth saying if at least this share of the cases that it is true of failed.
SHARE = 0.85

# An error of fewer budgets comes and goes with the numbers, whatever else a single case has.
UNCLEAR = 100.0

# Without a condition, a failure that this share of all cases shows needs none, or is said to be frequent.
NEARLY_ALL, MOST = 0.9, 0.6


@dataclass(frozen=True)
class Limits:
    """What finding a trigger may cost.

    Attributes:
        probes: calls at most, and a fifth more for a closer look where they give no clear picture.
        failures: probes that fail at most, where each costs a worker.
        seconds: limit of all probes.
    """

    probes: int = 120
    failures: int = 120
    seconds: float = 10.0


@dataclass(frozen=True)
class Trigger:
    """When a failure happens.

    Attributes:
        text: ``only when ...``, as a sentence goes on.
        condition: in the language of `oracle.conditions`, so that ``--restrict 'not (...)'`` leaves the failure out; ""
            where that has no words for it.
        failed, passed: cases tried that the text is true of.
        passed_outside: cases tried that it is not true of; none of them failed.
        elements: which elements are wrong; "" where nothing plain is true of them.
        atoms: the condition's parts.
    """

    text: str
    condition: str
    failed: int
    passed: int
    passed_outside: int
    elements: str = ""
    atoms: tuple[Atom, ...] = field(default=(), repr=False)

    def holds(self, case: Case, meaning: Mapping[str, str]) -> bool:
        """Whether the text is true of a case."""
        table = Table([Facts(case, meaning)])
        return all(atom.test(table)[0] for atom in self.atoms)

    def __str__(self) -> str:
        tried = self.failed + self.passed
        outside = f", none of {self.passed_outside} others did" if self.passed_outside else ""
        elements = f"; wrong are only {self.elements}" if self.elements else ""
        return f"{self.text}: {self.failed} of {tried} such cases failed{outside}{elements}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: value for name, value in vars(self).items() if name != "atoms"}


def find_trigger(
    shrunk: Finding, seen: Iterable[Judgement], failures: Sequence[Judgement], implementation: Implementation,
    examine: Callable[[Case], Judgement], valid: Callable[[Case], bool], limits: Limits,
) -> Trigger | None:  # fmt: skip
    """Probe around a shrunk case and say when it fails; None where nothing plain separates.

    Args:
        shrunk: the finding to explain.
        seen: cases that were examined before.
        failures: cases that failed on the way to the shrunk one: they must not contradict what is said.
        implementation: as declared.
        examine: judges a case.
        valid: whether a case may be tried.
        limits: of the probing.
    """
    search = _Search(shrunk, implementation, examine, valid, limits, failures)
    for judgement in seen:
        search.learn(judgement)
    near = search.probe(neighbours(shrunk.case, implementation), limits.probes - ROUNDS * TESTS)
    trigger = search.conclude()
    everywhere = trigger is not None and trigger.failed >= NEARLY_ALL * (trigger.failed + trigger.passed)
    if everywhere or (trigger is not None and trigger.atoms) or shrunk.ratio < UNCLEAR:
        return trigger
    # Other mistakes may blur the picture further off.
    closer = _Search(shrunk, implementation, examine, valid, limits, near=True)
    for judgement in near:
        closer.learn(judgement)
    found = closer.conclude(rounds=2)
    return trigger if found is None or not found.atoms else replace(found, text=f"near this case {found.text}", condition="")


class _Search:
    """What is known of the cases around a shrunk one."""

    def __init__(
        self, shrunk: Finding, implementation: Implementation, examine: Callable[[Case], Judgement], valid: Callable[[Case], bool],
        limits: Limits, failures: Sequence[Judgement] = (), near: bool = False,
    ) -> None:  # fmt: skip
        self.aside = [judgement for judgement in failures if _same_failure(shrunk.kind, judgement.finding)]
        self.bases, self.inside = (0, INSIDE_NEAR) if near else (BASES, INSIDE)
        self.shrunk, self.implementation, self.examine, self.valid, self.limits = shrunk, implementation, examine, valid, limits
        self.until = time.monotonic() + limits.seconds
        self.tried, self._known = {str(shrunk.case)}, dict[str, Facts]()
        self.facts, self.failed, self.failures = [self._facts(shrunk.case)], [True], 0
        self.wrong: list[Judgement] = []

    def _facts(self, case: Case) -> Facts:
        return self._known.setdefault(str(case), Facts(case, self.implementation.meaning))

    def learn(self, judgement: Judgement) -> bool | None:
        """Take note of a case; whether it failed as the shrunk one did, None where it tells nothing."""
        case = judgement.case
        failed = _same_failure(self.shrunk.kind, judgement.finding)
        if str(case) not in self.tried:
            self.tried.add(str(case))
            if failed or (failed is False and not self._is_empty(case)):
                self.facts.append(self._facts(case))
                self.failed.append(failed)
        if failed:
            self.wrong.append(judgement)
        return failed

    def _is_empty(self, case: Case) -> bool:
        """Whether a case passes because it holds nothing, unlike the shrunk one."""
        return 0 in case.dims.values() and 0 not in self.shrunk.case.dims.values()

    def probe(self, cases: Iterable[Case], count: int) -> list[Judgement]:
        """Examine cases that were not tried yet, as many as the limits leave."""
        probed: list[Judgement] = []
        for case in cases:
            if len(probed) == count or self.failures >= self.limits.failures or time.monotonic() > self.until:
                break
            if self._untried(case):
                probed.append(self.examine(case))
                self.failures += self.learn(probed[-1]) is not False
        return probed

    def conclude(self, rounds: int = ROUNDS) -> Trigger | None:
        """Put the best condition to the test until it holds, and say it."""
        for _ in range(rounds):
            chosen = self.fit()
            if not chosen or not self.probe(self.tests(chosen), TESTS):
                break
        return self.trigger(self._uncontradicted())

    def _uncontradicted(self) -> tuple[Atom, ...]:
        """The best condition that is true of the failures set aside too."""
        while chosen := self.fit():
            contradicting = [judgement for judgement in self.aside if not self._hold(chosen, judgement.case)]
            known = len(self.facts)
            for judgement in contradicting[:TESTS]:
                self.learn(judgement)
            if not contradicting:
                return chosen
            if len(self.facts) == known:  # a case that passed at one time and failed at another
                break
        return ()

    def _hold(self, chosen: tuple[Atom, ...], case: Case) -> bool:
        table = Table([self._facts(case)])
        return all(atom.test(table)[0] for atom in chosen)

    def _untried(self, case: Case) -> bool:
        return str(case) not in self.tried and case.consistent and self.valid(case)

    def fit(self) -> tuple[Atom, ...]:
        """The condition that fits best."""
        return fit(Table(self.facts), np.array(self.failed), self.inside)

    def tests(self, chosen: tuple[Atom, ...]) -> Iterator[Case]:
        """Probes that break one part of a condition each, or one more that it might have, from different cases that failed."""
        table, failed = Table(self.facts), np.array(self.failed)
        wrong = [facts for facts, failed in zip(self.facts, self.failed, strict=True) if failed]
        for atom in chosen:
            if atom.gap is not None and max(map(abs, atom.gap)) > NEGLIGIBLE:
                yield from _narrowing(atom, wrong)
        chosen = tuple(sorted(chosen, key=lambda atom: atom.of_values))  # to make the elements of few cases
        others = sorted(rivals(chosen, table, failed), key=lambda atom: atom.of_values)
        bases = [self.shrunk.case, *sorted((facts.case for facts in wrong[1:]), key=_unlike(self.shrunk.case))[: self.bases]]
        for base in bases:
            left = {atom.text for atom in (*chosen, *others)}
            for case in islice(filter(self._untried, neighbours(base, self.implementation)), SCANNED):
                one = Table([self._facts(case)])
                broken = list(islice((atom for atom in chosen if not atom.test(one)[0]), 2))
                if len(broken) < 2:
                    found = left & {atom.text for atom in broken or others if atom.text in left and not atom.test(one)[0]}
                    left -= found
                    if found:
                        yield case

    def trigger(self, chosen: tuple[Atom, ...]) -> Trigger | None:
        """The condition in words, if it is worth saying."""
        failed, table = np.array(self.failed), Table(self.facts)
        inside = np.ones(failed.shape, bool)
        for atom in chosen:
            inside &= atom.test(table)
        again = ", from the second identical call on" if self.shrunk.kind == "unrepeatable" else ""
        counts = int((inside & failed).sum()), int((inside & ~failed).sum()), int((~inside).sum())
        elements = wrong_elements(self.wrong, self.implementation.meaning)
        if chosen and failed[inside].mean() >= SHARE:
            text = " and ".join(atom.text for atom in chosen)
            return Trigger(f"only when {text}{_legend(chosen)}{again}", self._condition(chosen), *counts, elements, chosen)
        share, everywhere = failed.mean(), (int(failed.sum()), int((~failed).sum()), 0)
        often = "every case tried" if share == 1 else "nearly every case tried" if share >= NEARLY_ALL else "most cases tried"
        if share >= MOST and failed.size > 1:
            return Trigger(f"on {often}{again}", "", *everywhere, elements)
        return Trigger(f"on some cases{again}", "", *everywhere, elements) if elements or again else None

    def _condition(self, chosen: tuple[Atom, ...]) -> str:
        if not all(atom.condition for atom in chosen):
            return ""
        condition = " and ".join(atom.condition for atom in chosen)
        return condition if condition_names(condition) <= self.shrunk.case.specification.names else ""


def _same_failure(kind: str, finding: Finding | None) -> bool | None:
    """Whether a case fails in such a way; None where it fails in a way of its own."""
    if finding is None:
        return False
    return True if finding.kind == kind or ({finding.kind, kind} <= set(ALIKE) and finding.ratio >= CLEAR) else None


def _unlike(case: Case) -> Callable[[Case], int]:
    """Sorts cases by how many of their parts differ from a case's, the most first."""
    own = set(str(case).split())
    return lambda other: -len(own ^ set(str(other).split()))


def _narrowing(atom: Atom, failed: list[Facts]) -> Iterator[Case]:
    """The case that failed nearest to a bound, scaled to lie between it and those that passed."""
    assert atom.gap is not None, "only a bound on a magnitude has a gap"
    low, high = atom.gap
    magnitudes = Table(failed).magnitude(atom.subject)
    nearest = int(np.argmin(np.abs(magnitudes - (low + high) / 2)))
    case, own = failed[nearest].case, magnitudes[nearest]
    for share in (0.5, 0.25, 0.75):
        wanted = low + (high - low) * share
        for array in ("v",) if atom.subject == VALUES else SCALING:
            if array in case.arrays and own * wanted > 0:
                recipe = case.arrays[array]
                yield replace(case, arrays={**case.arrays, array: replace(recipe, gain=float(f"{recipe.gain * wanted / own:.3g}"))})


def _legend(chosen: tuple[Atom, ...]) -> str:
    letters = dict.fromkeys(re.findall(r"\b[a-z]\b", " ".join(atom.condition for atom in chosen)))
    words = [f"{letter}: {LETTERS[letter]}" for letter in letters if letter in LETTERS]
    return f" ({', '.join(words)})" if words else ""
