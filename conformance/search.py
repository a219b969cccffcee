"""The search: which cases a hunt executes, and in which order.

First those that refuted the implementation before, then random ones, cheap stages first, and at last cases aimed at the
mistakes that are still not ruled out. The oracle and the known mistakes run without the implementation, so whether a case
rules one out is known before it is called: where a call is so slow that not all cases fit into the time, aimed ones come
early, and every call counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from conformance.adequacy import Adequacy
from conformance.cases.case import Case
from conformance.cases.shapes import Stage, stages
from conformance.cases.strategies import random_case
from conformance.examine import Examiner

__all__ = ["Effort", "Search"]

# So many cases give every mistake that can apply to an implementation an occasion to do so.
ENOUGH_OCCASIONS = 150

# After these it is known how long a call takes.
FIRST_CASES = 20

# Cases looked at for one that rules something out: they cost an evaluation of the oracle, not a call.
CANDIDATES = 2

# This share of the cases, with every mistake ruled out by them, is enough where the time does not allow for all.
LEAST_SHARE = 0.15


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes:
        examples: cases of a hunt.
        seconds: limit of a hunt; what it has not done by then decides its verdict.
        shrink_steps: cases tried to shrink a finding.
        shrink_seconds: limit of shrinking where cases are slow.
        seed: of the random choices; the same seed gives the same hunt.
        diagnose: whether a finding is shrunk and explained.
    """

    examples: int = 500
    seconds: float = 120.0
    shrink_steps: int = 600
    shrink_seconds: float = 20.0
    seed: int = 0
    diagnose: bool = True


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
        self._aimed_at = 0

    @property
    def adequate(self) -> bool:
        """Whether enough cases were executed, and every applicable mistake is ruled out by them."""
        return self.executed >= LEAST_SHARE * self.effort.examples and not self.adequacy.left

    def cases(self) -> Iterator[Case]:
        """Hand out cases until there are enough, or the time is up."""
        started = time.monotonic()
        until = started + self.effort.seconds
        for case in self._order(started, until):
            self.executed += 1
            yield case
            if time.monotonic() > until:
                return

    def _order(self, started: float, until: float) -> Iterator[Case]:
        # Not seeded by the dtype: an implementation that keeps something by shape meets the same shapes in each dtype.
        rng = Random(f"{self.effort.seed} {self.implementation.method}")
        self.stage = "remembered"
        yield from self.remembered
        small, *larger = self.random_stages
        first = min(FIRST_CASES, round(small.share * self.effort.examples))
        yield from self._random(rng, small, first)
        per_case = (time.monotonic() - started) / max(self.executed, 1)
        slow = per_case * self.effort.examples > self.effort.seconds
        if slow:
            yield from self._aimed(rng, until)
        for stage in (small, *larger):
            count = round(stage.share * self.effort.examples) - first * (stage is small)
            share = time.monotonic() + stage.share * (until - time.monotonic()) if slow else until
            yield from self._random(rng, stage, count, share, enough=slow)
        yield from self._aimed(rng, until)

    def _random(self, rng: Random, stage: Stage, count: int, until: float = float("inf"), *, enough: bool = False) -> Iterator[Case]:
        self.stage = stage.name
        for _ in range(count):
            if time.monotonic() > until or (enough and self.adequate):
                return
            yield random_case(rng, self.implementation, self.dtype, stage)

    def _aimed(self, rng: Random, until: float) -> Iterator[Case]:
        """Cases that rule out what is left, chosen among `CANDIDATES` times as many random ones as there are examples."""
        self._look_ahead()
        self.stage = "aimed"
        for index in range(CANDIDATES * self.effort.examples):
            if not self.adequacy.left or time.monotonic() > until:
                return
            case = random_case(rng, self.implementation, self.dtype, self.random_stages[index % 2])
            if self.adequacy.exposes(case, self.examiner.wanted(case)):
                yield case

    def _look_ahead(self) -> None:
        """Count as met what would apply to cases that a few executed ones left without an occasion."""
        self.adequacy.look_ahead(
            random_case(Random(f"{index} occasions"), self.implementation, self.dtype, self.random_stages[index % 2])
            for index in range(ENOUGH_OCCASIONS - self.executed)
        )
