"""The hunt: cases, cheap ones first, until one refutes the implementation or every known mistake is ruled out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random

from threadpoolctl import threadpool_limits

from conformance.adequacy import Adequacy
from conformance.cases.case import Case
from conformance.cases.features import features
from conformance.cases.shapes import Stage, stages
from conformance.cases.strategies import random_case
from conformance.diagnosis import NUMERICAL, explain
from conformance.examine import Clock, Examiner
from conformance.judge import Finding, Judgement
from conformance.registry import Implementation
from conformance.sandbox import Sandbox
from conformance.shrink import shrink
from oracle.conditions import holds
from oracle.readings.contract import PrecisionContract

__all__ = ["Effort", "Hunt", "HuntResult", "Progress"]

# Kinds that no amount of smaller cases makes clearer, and whose every step costs a worker.
COSTLY = ("hang", "crash", "exit")

# Small cases examined after a finding, to tell its explanations apart.
EVIDENCE = 40

# So many cases give every mistake that can apply to an implementation an occasion to do so.
ENOUGH_OCCASIONS = 150

# Cases with NaN where nothing may read.
NAN_CASES = 12

Progress = Callable[["Hunt"], None]


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
    seconds: float = 60.0
    shrink_steps: int = 600
    shrink_seconds: float = 20.0
    seed: int = 0
    diagnose: bool = True


@dataclass
class HuntResult:
    """What a hunt came to.

    Attributes:
        verdict: certified, refuted or inconclusive.
        contract: under which it was judged.
        examples: cases examined before a finding, or in all.
        seconds: of hunting, shrinking and diagnosis included.
        worst_ratio: largest error over budget of the cases that passed.
        worst_case: where that was.
        ruled_out: mistakes that the cases would have exposed.
        not_ruled_out: mistakes that applied but were not exposed.
        findings: with explanations, if refuted.
        coverage: how often each option and pair of options was exercised.
        clock: where the time went.
        seconds_to_finding: from the start to the first failing case.
        isolates_nan: whether NaN where nothing may read stays without effect; None where it was not looked at.
    """

    verdict: str
    contract: PrecisionContract
    examples: int
    seconds: float
    worst_ratio: float = 0.0
    worst_case: str = ""
    ruled_out: list[str] = field(default_factory=list)
    not_ruled_out: list[str] = field(default_factory=list)
    findings: list[tuple[Finding, list[str]]] = field(default_factory=list)
    coverage: Counter[str] = field(default_factory=Counter)
    clock: Clock = field(default_factory=Clock)
    seconds_to_finding: float | None = None
    isolates_nan: bool | None = None


class Hunt:
    """Hunts one implementation in one dtype."""

    def __init__(
        self, implementation: Implementation, dtype: str, sandbox: Sandbox, effort: Effort, *,
        contract: PrecisionContract | None = None, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.implementation, self.dtype, self.effort = implementation, dtype, effort
        self.examiner = Examiner(implementation, dtype, sandbox, contract)
        self.adequacy = Adequacy(implementation)
        self.examples, self.worst = 0, Judgement(Case("", dtype, {}, {}), None)
        self.stages = stages(dtype)
        self.stage = self.stages[0].name
        self.coverage: Counter[str] = Counter()
        self._passing: list[Judgement] = []
        self._progress = progress or (lambda hunt: None)

    def run(self) -> HuntResult:
        """Hunt until refuted, out of examples or out of time."""
        # The oracle's products are small: a second BLAS thread costs more than it gives, and the kernel needs the core.
        with threadpool_limits(limits=1, user_api="blas") if self.examiner.sandbox.isolated else nullcontext():
            return self._run()

    def _run(self) -> HuntResult:
        started = time.monotonic()
        for case in self._cases(started + self.effort.seconds):
            judgement = self.examiner.examine(case)
            self.examples += 1
            self._count(case)
            if judgement.finding is not None:
                seconds_to_finding = time.monotonic() - started
                result = self._refuted(judgement)
                result.seconds, result.seconds_to_finding = time.monotonic() - started, seconds_to_finding
                return result
            self._passed(judgement)
            self._progress(self)
        complete = self.examples >= self.effort.examples or (self.examples >= self.effort.examples // 4 and not self.adequacy.left)
        verdict = "certified" if complete and not self.adequacy.left else "inconclusive"
        isolates_nan = self._isolates_nan()
        result = self._result(verdict, time.monotonic() - started)
        result.isolates_nan = isolates_nan
        return result

    def _cases(self, until: float) -> Iterator[Case]:
        # Not seeded by the dtype: an implementation that keeps something by shape meets the same shapes in each dtype.
        rng = Random(f"{self.effort.seed} {self.implementation.method}")
        for stage in self.stages:
            self.stage = stage.name
            yield from self._stage(rng, stage, round(stage.share * self.effort.examples), until)
        if self.examples < ENOUGH_OCCASIONS:
            self.adequacy.look_ahead(
                random_case(Random(f"{index} occasions"), self.implementation, self.dtype, self.stages[index % 2])
                for index in range(ENOUGH_OCCASIONS - self.examples)
            )
        # Mistakes that are not ruled out yet get as many cases again.
        for _ in range(self.effort.examples):
            if not self.adequacy.left or time.monotonic() > until:
                return
            self.stage = "adequacy"
            yield random_case(rng, self.implementation, self.dtype, self.stages[1])

    def _isolates_nan(self) -> bool | None:
        """Whether NaN in elements that nothing may read stays without effect: a property that a certificate states."""
        rng, looked_at = Random(self.effort.seed), 0
        for _ in range(NAN_CASES * 20):
            case = random_case(rng, self.implementation, self.dtype, self.stages[0])
            hidden = [name for name, recipe in case.arrays.items() if recipe.garbage]
            if hidden:
                arrays = {name: replace(recipe, garbage="nan" if name in hidden else "") for name, recipe in case.arrays.items()}
                if self.examiner.examine(replace(case, arrays=arrays)).finding is not None:
                    return False
                looked_at += 1
            if looked_at == NAN_CASES:
                break
        return True if looked_at else None

    def _stage(self, rng: Random, stage: Stage, count: int, until: float) -> Iterator[Case]:
        for _ in range(count):
            if time.monotonic() > until:
                return
            yield random_case(rng, self.implementation, self.dtype, stage)

    def _count(self, case: Case) -> None:
        found = features(case)
        self.coverage.update(found)
        self.coverage.update(f"{a} x {b}" for a, b in combinations(found, 2))

    def _passed(self, judgement: Judgement) -> None:
        self.adequacy.learn(judgement)
        if judgement.ratio > self.worst.ratio or not self.worst.case.method:
            self.worst = replace(judgement, outputs=(), wanted=())
        if judgement.case.size <= 20_000 and len(self._passing) < 30:
            self._passing.append(judgement)

    def _refuted(self, judgement: Judgement) -> HuntResult:
        found = judgement.finding
        assert found is not None, "only a finding refutes"
        if not self.effort.diagnose:
            result = self._result("refuted", 0.0)
            result.findings = [(found, [])]
            return result
        failing: list[Judgement] = []

        def examine(case: Case) -> Finding | None:
            outcome = self.examiner.examine(case)
            if outcome.finding is not None and len(failing) < 60:
                failing.append(outcome)
            elif outcome.finding is None and len(self._passing) < 90:
                self._passing.append(outcome)
            return outcome.finding

        steps = self.effort.shrink_steps if found.kind not in COSTLY else self.effort.shrink_steps // 10
        small = shrink(found, examine, self._allowed, steps, self.effort.shrink_seconds)
        shrunk = self.examiner.examine(small.case)
        if found.kind in NUMERICAL:
            # Shrinking looks at one corner; explanations are told apart by cases from all over.
            rng = Random(self.effort.seed)
            for _ in range(EVIDENCE):
                examine(random_case(rng, self.implementation, self.dtype, self.stages[0]))
        numerical = found.kind in NUMERICAL
        explained = (
            explain(self.implementation, [shrunk, *failing, judgement], self._passing, self.examiner.judge.contract) if numerical else []
        )
        result = self._result("refuted", 0.0)
        result.findings = [(small, explained)]
        return result

    def _allowed(self, case: Case) -> bool:
        return all(holds(condition, case.facts()) for condition in self.implementation.restrictions)

    def _result(self, verdict: str, seconds: float) -> HuntResult:
        return HuntResult(
            verdict, self.examiner.judge.contract, self.examples, seconds, self.worst.ratio,
            str(self.worst.case) if self.worst.case.method else "", list(self.adequacy.ruled_out), self.adequacy.left,
            coverage=self.coverage, clock=self.examiner.clock,
        )  # fmt: skip
