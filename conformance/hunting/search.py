"""The search: which cases a hunt executes, and in which order.

First those that refuted the implementation before, then probes and independent random ones, cheap stages first: after the first few
of these numbers that small integers do not hold, where a method has places or sequences to number, and before the last of them rows of
thousands of tokens where it carries a state along. Then come those that invariants judge, a directed search for the largest error over
budget, and at last cases aimed at the mistakes that are still not ruled out. The oracle and the known mistakes run without the
implementation, so whether a case rules one out is known before it is called: where a call is so slow that not all cases fit into the
time, aimed ones come early, and every call counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis.errors import Unsatisfiable

from conformance.adequacy import Adequacy
from conformance.cases.case import Case
from conformance.cases.shapes import Stage, stages
from conformance.cases.strategies import cases, random_case
from conformance.examine import Examiner
from conformance.invariants.drawing import invariant_cases
from conformance.judge import Judgement
from conformance.probes import high_number_cases, long_cases, probe_cases

__all__ = ["LEAST_SHARE", "Effort", "Search"]

# So many cases give every mistake that can apply to an implementation an occasion to do so.
ENOUGH_OCCASIONS = 150

# After these it is known how long a call takes.
FIRST_CASES = 20

# Cases looked at for one that rules something out: they cost an evaluation of the oracle, not a call.
CANDIDATES = 2

# This share of the cases, with every mistake ruled out by them, is enough where the time does not allow for all.
LEAST_SHARE = 0.15

# Hypothesis takes no infinity for a target, which a NaN is off by.
LARGEST_TARGET = 1e300


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes:
        examples: cases of a hunt.
        seconds: limit of a hunt; what it has not done by then decides its verdict.
        shrink_steps: cases tried to shrink a finding.
        shrink_seconds: limit of shrinking where cases are slow.
        seed: of the random choices; the same seed gives the same hunt.
        diagnose: whether a finding is shrunk and explained, and the mistakes told that the cases before it ruled out.
        thorough: whether to look at all that a certificate states, such as the mistakes that are ruled out; else nothing is certified.
    """

    examples: int = 600
    seconds: float = 120.0
    shrink_steps: int = 600
    shrink_seconds: float = 20.0
    seed: int = 0
    diagnose: bool = True
    thorough: bool = True


class Search:
    """The cases of one hunt, one after the other.

    Attributes:
        executed: how many cases were handed out.
        stage: name of the current part, for the progress display.
        random_stages: the parts that draw independent cases.
    """

    def __init__(self, examiner: Examiner, adequacy: Adequacy, effort: Effort, remembered: Sequence[Case] = ()) -> None:
        self.examiner, self.adequacy, self.effort, self.remembered = examiner, adequacy, effort, remembered
        self.implementation, self.dtype = examiner.implementation, examiner.dtype
        self.random_stages = stages(self.dtype)
        self.executed, self.stage = 0, self.random_stages[0].name
        # Not seeded by the dtype: an implementation that keeps something by shape meets the same shapes in each dtype.
        self._rng = Random(f"{self.effort.seed} {self.implementation.method}")
        self._until = 0.0
        self._slow, self._added = False, 0

    @property
    def adequate(self) -> bool:
        """Whether enough cases were executed, and every applicable mistake is ruled out by them."""
        return self.effort.thorough and self.executed >= LEAST_SHARE * self.effort.examples and not self.adequacy.left

    def run(self, look: Callable[[Case], Judgement]) -> Judgement | None:
        """Hand cases to ``look`` until one is refuted, which is returned, there are enough, or the time is up."""
        started = time.monotonic()
        self._until = started + self.effort.seconds
        self._slow = True  # unless the first cases, all of them, show otherwise
        small = self.random_stages[0]
        first = min(FIRST_CASES, round(small.share * self.effort.examples))

        def early() -> Iterator[Case]:
            self.stage = "remembered"
            yield from self.remembered
            yield from self._in_addition("probes", islice(probe_cases(self.implementation, self.dtype), self.effort.examples))
            yield from self._random(small, first, self._until)
            self.adequacy.settle()  # which is part of what a case costs
            self._slow = (time.monotonic() - started) / max(self.executed, 1) * self.effort.examples > self.effort.seconds
            if not self._slow:
                yield from self._in_addition("high numbers", high_number_cases(self.implementation, self.dtype))

        def rest() -> Iterator[Case]:
            examples = self.effort.examples
            if self._slow:
                yield from self._aimed()
                examples = round(LEAST_SHARE * examples)
            for index, stage in enumerate(self.random_stages):
                count = round(stage.share * examples) - (first if index == 0 else 0)
                # Each stage has its share of the time: a certificate that ran out of it has seen long rows all the same.
                share = stage.share / sum(later.share for later in self.random_stages[index:])
                if stage is self.random_stages[-1] and not self._slow:  # before the last one, which may take what is left of the time
                    yield from self._in_addition("long rows", long_cases(self.implementation, self.dtype))
                yield from self._random(stage, count, time.monotonic() + share * (self._until - time.monotonic()))
            if self._slow:  # what the directed search would have had
                yield from self._random(small, math.ceil(LEAST_SHARE * self.effort.examples) - self.executed, self._until)
            else:
                named = invariant_cases(self.examiner, self.effort.examples, self.effort.seconds, self.effort.seed)
                yield from self._in_addition("invariants", named)

        found = self._each(early(), look)
        found = found or self._each(rest(), look)
        if found is None and not self._slow:
            found = self._directed(look)
        return found or self._each(self._aimed(), look)

    def _each(self, cases: Iterator[Case], look: Callable[[Case], Judgement]) -> Judgement | None:
        for case in cases:
            judgement = self._look(case, look)
            if judgement.finding is not None:
                return judgement
            if time.monotonic() > self._until:
                break
        return None

    def _look(self, case: Case, look: Callable[[Case], Judgement]) -> Judgement:
        self.executed += 1
        return look(case)

    def _in_addition(self, stage: str, listed: Iterator[Case]) -> Iterator[Case]:
        """Cases that do not count as the examples that were asked for."""
        self.stage = stage
        for case in listed:
            self._added += 1
            yield case

    def _random(self, stage: Stage, count: int, until: float) -> Iterator[Case]:
        self.stage = stage.name
        for _ in range(count):
            if time.monotonic() > until:
                return
            yield random_case(self._rng, self.implementation, self.dtype, stage)

    def _directed(self, look: Callable[[Case], Judgement]) -> Judgement | None:
        """Let Hypothesis drive small cases towards a larger error over budget (Loscher and Sagonas 2017, targeted testing).

        It comes to nearly twice the error over budget of as many random cases, but drawing one costs as much as judging it.
        """
        self.stage = "directed"
        found: list[Judgement] = []

        @seed(self.effort.seed)
        @settings(
            max_examples=max(1, self.effort.examples + self._added - self.executed), phases=(Phase.generate, Phase.target), deadline=None,
            database=None, suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(cases(self.implementation, self.dtype, self.random_stages[0]))
        def search(case: Case) -> None:
            if not found and time.monotonic() < self._until:
                judgement = self._look(case, look)
                target(min(judgement.ratio, LARGEST_TARGET))
                if judgement.finding is not None:
                    found.append(judgement)

        try:
            with _without_constants_of_modules():
                search()
        except Unsatisfiable:  # restrictions exclude nearly everything: the random stages have looked harder
            return None
        return found[0] if found else None

    def _aimed(self) -> Iterator[Case]:
        """Cases that rule out what is left, chosen among `CANDIDATES` times as many random ones as there are examples."""
        if not self.effort.thorough:
            return
        self._look_ahead()
        self.stage = "aimed"
        for index in range(CANDIDATES * self.effort.examples):
            if not self.adequacy.left or time.monotonic() > self._until:
                return
            case = random_case(self._rng, self.implementation, self.dtype, self.random_stages[index % 2])
            if self.adequacy.exposes(case, self.examiner.wanted(case)):
                yield case

    def _look_ahead(self) -> None:
        """Count as met what would apply to cases that a few executed ones left without an occasion."""
        self.adequacy.look_ahead(
            random_case(Random(f"{index} occasions"), self.implementation, self.dtype, self.random_stages[index % 2])
            for index in range(ENOUGH_OCCASIONS - self.executed)
        )


def _without_constants_of_modules() -> AbstractContextManager[object]:
    """Keep Hypothesis from reading, for constants to draw, the source of every module that is not in site-packages.

    In a working copy that takes seconds, and what is drawn would depend on what happens to be imported.
    """
    try:
        providers: Any = import_module("hypothesis.internal.conjecture.providers")
        return patch.object(providers.HypothesisProvider, "_local_constants", providers.Constants())
    except (ImportError, AttributeError):  # another release, which does it otherwise or not at all
        return nullcontext()
