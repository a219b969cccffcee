"""The hunt: cases, cheap ones first, until one refutes the implementation or every known mistake is ruled out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random

from threadpoolctl import threadpool_limits

from conformance.adequacy import Adequacy
from conformance.cases.case import Case
from conformance.cases.features import features
from conformance.cases.strategies import random_case
from conformance.diagnosis.diagnose import Diagnosis, diagnose
from conformance.diagnosis.evidence import NUMERICAL
from conformance.diagnosis.pictures import Picture, picture_of
from conformance.diagnosis.trigger import Trigger
from conformance.diagnosis.weighing import weighing
from conformance.examine import Clock, Examiner
from conformance.hunting.refusals import refused, simplest_case
from conformance.hunting.search import Effort, Search
from conformance.isolation.sandbox import Sandbox
from conformance.judge import Finding, Judgement
from conformance.registry import Implementation
from oracle.readings.contract import PrecisionContract

__all__ = ["Effort", "Hunt", "HuntResult", "Progress"]


# Cases with NaN where nothing may read.
NAN_CASES = 12

Progress = Callable[["Hunt"], None]


@dataclass
class HuntResult:
    """What a hunt came to.

    Attributes:
        verdict: certified, refuted or inconclusive.
        contract: under which it was judged.
        implementation: as it was judged, with restrictions for what it refused.
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
        deterministic: whether two identical calls gave the same bits in every case; a correct one may differ in rounding.
        trigger: when the finding happens, as far as probing tells.
        near_ties: rows, in cases that passed, in which a discrete decision had several legitimate outcomes.
        widened: rows of these that had too many to judge each: they were judged by a wider budget.
        ratios: worst error over budget of every case that passed.
        pictures: of the case that was found, of the smallest one, and of the first with values that show its weights, where what came of
            them could be compared.
    """

    verdict: str
    contract: PrecisionContract
    implementation: Implementation
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
    deterministic: bool = True
    trigger: Trigger | None = None
    near_ties: int = 0
    widened: int = 0
    ratios: list[float] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


class Hunt:
    """Hunts one implementation in one dtype."""

    def __init__(
        self, implementation: Implementation, dtype: str, sandbox: Sandbox, effort: Effort, *,
        contract: PrecisionContract | None = None, remembered: Sequence[Case] = (), progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.dtype, self.effort = dtype, effort
        refusals = refused(implementation, dtype, Examiner(implementation, dtype, sandbox, contract).examine)
        self.implementation = implementation = implementation.declaring(restrictions=refusals)
        self.examiner = Examiner(implementation, dtype, sandbox, contract)
        self.adequacy = Adequacy(implementation, contract=self.examiner.judge.contract)
        known = [case for case in remembered if implementation.admits(case.facts())]  # what it refuses was not known when they were read
        self.search = Search(self.examiner, self.adequacy, effort, known)
        self.worst = Judgement(Case("", dtype, {}, {}), None)
        self.coverage: Counter[str] = Counter()
        self.deterministic = True
        self.near_ties = self.widened = 0
        self.ratios: list[float] = []
        self._opened = 0
        self._passing: list[Judgement] = []
        self._progress = progress or (lambda hunt: None)

    @property
    def examples(self) -> int:
        """How many cases were executed."""
        return self._opened + self.search.executed

    def run(self) -> HuntResult:
        """Hunt until refuted, out of examples or out of time."""
        # The oracle's products are small: a second BLAS thread costs more than it gives, and the kernel needs the core.
        with threadpool_limits(limits=1, user_api="blas") if self.examiner.sandbox.isolated else nullcontext():
            return self._run()

    def _run(self) -> HuntResult:
        started = time.monotonic()
        found = self._opening() or self.search.run(self._look) or self._soak()
        if found is not None:
            seconds_to_finding = time.monotonic() - started
            result = self._refuted(found)
            result.seconds, result.seconds_to_finding = time.monotonic() - started, seconds_to_finding
            return result
        verdict = "certified" if self.search.adequate else "inconclusive"
        isolates_nan = self._isolates_nan() if self.effort.thorough else None
        result = self._result(verdict, time.monotonic() - started)
        result.isolates_nan = isolates_nan
        return result

    def _look(self, case: Case) -> Judgement:
        judgement = self.examiner.examine(case)
        self._count(case)
        if judgement.finding is None:
            self._passed(judgement)
            self._progress(self)
        return judgement

    def _isolates_nan(self) -> bool | None:
        """Whether NaN in elements that nothing may read stays without effect: a property that a certificate states."""
        rng, looked_at = Random(self.effort.seed), 0
        for _ in range(NAN_CASES * 20):
            case = random_case(rng, self.implementation, self.dtype, self.search.random_stages[0])
            hidden = [name for name, recipe in case.arrays.items() if recipe.garbage]
            if hidden:
                arrays = {name: replace(recipe, garbage="nan" if name in hidden else "") for name, recipe in case.arrays.items()}
                if self.examiner.examine(replace(case, arrays=arrays)).finding is not None:
                    return False
                looked_at += 1
            if looked_at == NAN_CASES:
                break
        return True if looked_at else None

    def _opening(self) -> Judgement | None:
        """The plainest call as the first of its process: an empty case, or a warm-up, would hide what goes wrong there."""
        case = simplest_case(self.implementation, self.dtype, Random(f"{self.effort.seed} opening"))
        if case is None:
            return None
        self._opened = 1
        judgement = self.examiner.examine(case)
        return judgement if judgement.finding is not None else None

    def _soak(self) -> Judgement | None:
        """The largest of the small cases over and over; what it finds, if anything."""
        if not self.effort.thorough:
            return None
        largest = max(self._passing, key=lambda judgement: judgement.case.size, default=None)
        judgement = None if largest is None else self.examiner.soak(largest.case.plain())
        return judgement if judgement is not None and judgement.finding is not None else None

    def _count(self, case: Case) -> None:
        found = features(case)
        self.coverage.update(found)
        self.coverage.update(f"{a} x {b}" for a, b in combinations(found, 2))

    def _passed(self, judgement: Judgement) -> None:
        if judgement.case.invariant:  # the oracle has not judged it
            return
        self.deterministic &= judgement.repeats
        self.near_ties += judgement.near_ties
        self.widened += judgement.widened
        if self.effort.thorough:
            self.adequacy.learn(judgement)
        self.ratios.append(judgement.ratio)
        if judgement.ratio > self.worst.ratio or not self.worst.case.method:
            self.worst = replace(judgement, outputs=(), wanted=())
        if judgement.case.size <= 20_000 and len(self._passing) < 30:
            self._passing.append(judgement)

    def _refuted(self, judgement: Judgement) -> HuntResult:
        assert judgement.finding is not None, "only a finding refutes"
        diagnosis = Diagnosis(judgement.finding)
        if self.effort.diagnose:
            steps, seconds = self.effort.shrink_steps, self.effort.shrink_seconds
            diagnosis = diagnose(judgement, self._passing, self.examiner, seed=self.effort.seed, steps=steps, seconds=seconds)
        result = self._result("refuted", 0.0)
        result.findings, result.trigger = [(diagnosis.finding, diagnosis.explained)], diagnosis.trigger
        smallest = self.examiner.examine(diagnosis.finding.case)
        weighed = self._weighed(judgement) if self.effort.diagnose else []
        failing = [judgement, *([smallest] if smallest.case != judgement.case else []), *weighed]
        result.pictures = [picture for one in failing if (picture := picture_of(one)) is not None]
        return result

    def _weighed(self, judgement: Judgement) -> list[Judgement]:
        """The same call with values that make its output its weights, where these are wrong, too."""
        if judgement.finding is None or judgement.finding.kind not in NUMERICAL:
            return []
        case = weighing(judgement.case)
        if case is None or case == judgement.case or not self.implementation.admits(case.facts()):
            return []
        weighed = self.examiner.examine(case)
        return [weighed] if weighed.finding is not None and weighed.outputs else []

    def _result(self, verdict: str, seconds: float) -> HuntResult:
        told = verdict != "refuted" or self.effort.diagnose
        return HuntResult(
            verdict, self.examiner.judge.contract, self.implementation, self.examples, seconds, self.worst.ratio,
            str(self.worst.case) if self.worst.case.method else "",
            list(self.adequacy.ruled_out) if told else [], self.adequacy.left if told else [],
            coverage=self.coverage, clock=self.examiner.clock, deterministic=self.deterministic, near_ties=self.near_ties,
            widened=self.widened, ratios=self.ratios,
        )  # fmt: skip
