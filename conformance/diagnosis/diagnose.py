"""Diagnosis: from a case that failed to the smallest one that does, when it happens, and what explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from conformance.cases.case import Case
from conformance.cases.shapes import stages
from conformance.cases.strategies import random_case
from conformance.diagnosis.evidence import Evidence
from conformance.diagnosis.explaining import explain
from conformance.diagnosis.shrink import keeps, shrink
from conformance.diagnosis.trigger import Limits, Trigger, find_trigger
from conformance.examine import Examiner
from conformance.judge import Finding, Judgement
from conformance.registry import Implementation

__all__ = ["Diagnosis", "diagnose"]

# Kinds that no amount of smaller cases makes clearer, and whose every step costs a worker.
COSTLY = ("hang", "crash", "exit", "memory", "tampering", "depends-on-history")

# Small cases from all over, examined after a finding, to tell its explanations apart.
SMALL_CASES = 80

# When a failure happens that does not in a new process.
AFTER_ANOTHER = "only when another call of the same shapes came before"
AFTER_OTHERS = "only after other calls, not alone in a new process"

# Steps of shrinking where every one of them takes a new worker.
FRESH_STEPS = 40

# Seconds that looking for pairs of explanations may take.
PAIRING_SECONDS = 3.0


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a failure.

    Attributes:
        finding: its smallest case.
        explained: known mistakes, conventions or precisions that explain it.
        trigger: when it happens.
    """

    finding: Finding
    explained: list[str] = field(default_factory=list)
    trigger: Trigger | None = None


def diagnose(judgement: Judgement, passed: Sequence[Judgement], examiner: Examiner, *, seed: int, steps: int, seconds: float) -> Diagnosis:
    """Shrink a failing case, probe around it and explain it.

    Args:
        judgement: of the failing case.
        passed: cases of the hunt that agreed with the oracle.
        examiner: of the hunt.
        seed: of the cases that are drawn.
        steps, seconds: limits of shrinking.
    """
    found = _Dissection(judgement, passed, examiner, seed).run(steps, seconds)
    if judgement.finding is None or not judgement.finding.reads:
        return found
    # The smallest case has plain numbers: what the codes of the first one said is kept beside it.
    return replace(found, finding=replace(found.finding, reads=f"{judgement.finding.reads} [{judgement.finding.case}]"))


class _Dissection:
    def __init__(self, judgement: Judgement, passed: Sequence[Judgement], examiner: Examiner, seed: int) -> None:
        assert judgement.finding is not None, "only a finding is diagnosed"
        self.judgement, self.found, self.passed, self.examiner, self.seed = judgement, judgement.finding, passed, examiner, seed
        self.costly = self.found.kind in COSTLY
        self.shrinking: list[Judgement] = []
        self.probes: list[Judgement] = []

    def run(self, steps: int, seconds: float) -> Diagnosis:
        """All of it, in order."""
        small = shrink(self.found, self._noting(self.shrinking), self._allowed, steps // 10 if self.costly else steps, seconds)
        if not self.costly and self.examiner.sandbox.isolated:
            alone, when = self._alone(small, seconds)
            if alone is None:
                return self._with_past(seconds)
            if when:
                return Diagnosis(alone, trigger=Trigger(when, "", failed=1, passed=0, passed_outside=1))
            # It may be wrong at the first call only.
            small = self.examiner.confirm(self.examiner.examine(alone.case)).finding or alone
        shrunk = self.examiner.examine(small.case)
        drawn = [] if self.costly else self._drawn()
        failures = [self.judgement, *(judgement for judgement in self.shrinking if judgement.finding is not None)]
        limits = Limits(failures=6, seconds=seconds) if self.costly else Limits()
        implementation, probe = self.examiner.implementation, self._judging(self.probes)
        trigger = find_trigger(small, drawn, failures, implementation, probe, self._allowed, limits)
        return Diagnosis(small, self._explained(shrunk, drawn, trigger), trigger)

    def _judging(self, judgements: list[Judgement]) -> Callable[[Case], Judgement]:
        def judge(case: Case) -> Judgement:
            judgements.append(self.examiner.examine(case))
            return judgements[-1]

        return judge

    def _noting(self, judgements: list[Judgement]) -> Callable[[Case], Finding | None]:
        judge = self._judging(judgements)
        return lambda case: judge(case).finding

    def _allowed(self, case: Case) -> bool:
        implementation = self.examiner.implementation
        return implementation.admits(case.facts()) and implementation.tunes(case.tunables)

    def _drawn(self) -> list[Judgement]:
        # Shrinking looks at one corner; explanations are told apart by cases from all over.
        implementation, dtype = self.examiner.implementation, self.examiner.dtype
        rng, [stage, *_] = Random(self.seed), stages(dtype)
        return [self.examiner.examine(random_case(rng, implementation, dtype, stage)) for _ in range(SMALL_CASES)]

    def _alone(self, small: Finding, seconds: float) -> tuple[Finding | None, str]:
        """The finding as it happens in a new worker, where nothing was called before, and what it takes if not that alone."""
        for start in (small, self.found):
            cold, warm = replace(start.case, warm=False), replace(start.case, warm=True)
            for case, when in ((cold, ""), (warm, AFTER_ANOTHER)):
                finding = self._afresh(case)
                if finding is None:
                    continue
                finding = finding if keeps(self.found, finding) else start
                if start is small and case is cold:
                    return finding, ""
                # Where earlier calls matter, what failed on the way down may have failed because of them.
                return shrink(finding, self._afresh, self._allowed, FRESH_STEPS, seconds / 4), when
        return None, ""

    def _afresh(self, case: Case) -> Finding | None:
        return self.examiner.alone(case).finding

    def _with_past(self, seconds: float) -> Diagnosis:
        """The finding of a process with a past, with as much of the past as it takes."""
        found = self.examiner.confirm(self.judgement).finding or self.found
        small = shrink(found, lambda case: self.examiner.examine(case).finding, self._allowed, FRESH_STEPS, seconds / 4)
        return Diagnosis(small, trigger=Trigger(AFTER_OTHERS, "", failed=1, passed=0, passed_outside=1))

    def _explained(self, shrunk: Judgement, drawn: list[Judgement], trigger: Trigger | None) -> list[str]:
        failing = [judgement for judgement in (*drawn, *self.probes, *self.shrinking) if judgement.finding is not None]
        passing = [judgement for judgement in (*self.probes, *drawn, *self.passed) if judgement.finding is None]
        implementation, contract = self.examiner.implementation, self.examiner.judge.contract
        evidence = Evidence(implementation, implementation.meaning, contract, [shrunk, *failing, self.judgement], passing)
        examiners: dict[str, Examiner] = {}
        died: list[Finding] = []

        def call(variant: Implementation, case: Case) -> Judgement:
            if died:  # called otherwise it may do so each time, and each time costs a worker
                return Judgement(case, died[0])
            key = f"{variant.conventions} {variant.layout}"
            if key not in examiners:
                examiners[key] = Examiner(variant, self.examiner.dtype, self.examiner.sandbox, contract)
            judgement = examiners[key].examine(case)
            if judgement.finding is not None and judgement.finding.kind in COSTLY:
                died.append(judgement.finding)
            return judgement

        return explain(evidence, call, trigger, PAIRING_SECONDS)
