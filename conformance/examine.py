"""One case through an implementation and the oracle, at the same time: the worker computes while the judge's side does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from conformance.cases.case import Case
from conformance.invariants.check import judge_by_invariant
from conformance.isolation.calling import Caller, Response
from conformance.isolation.history import at_first, find_past, with_past
from conformance.isolation.sandbox import Sandbox, WorkerDied
from conformance.judge import Finding, Judge, Judgement
from conformance.probes import read
from conformance.registry import Implementation
from oracle.readings import Expected, expected
from oracle.readings.bounded import Bounded
from oracle.readings.contract import PrecisionContract

__all__ = ["Clock", "Examiner"]

# Identical calls at the end of a hunt, and the seconds that they may take.
SOAK_CALLS, SOAK_SECONDS = 100, 1.0


@dataclass
class Clock:
    """Where the time of a hunt goes, in seconds."""

    making: float = 0.0
    oracle: float = 0.0
    kernel: float = 0.0
    judging: float = 0.0


@dataclass
class _Prepared:
    """A case with what making it and its answer cost time: it is often run again."""

    case: Case
    arguments: dict[str, Any]
    bounded: tuple[Bounded, ...] | None = None


@dataclass
class Examiner:
    """Examines cases of one implementation in one dtype; remembers what it has seen.

    Attributes:
        implementation: as declared.
        dtype: storage dtype.
        sandbox: with the implementation loaded.
        contract: None for the declared one.
    """

    implementation: Implementation
    dtype: str
    sandbox: Sandbox
    contract: PrecisionContract | None = None
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.judge = Judge(self.implementation, self.dtype, self.contract, self.sandbox.device)
        self.caller = Caller(self.implementation, self.sandbox.arena)
        self._known: dict[str, Judgement] = {}
        self._alone: dict[str, Judgement] = {}
        self._last = _Prepared(Case("", self.dtype, {}, {}), {})

    def examine(self, case: Case) -> Judgement:
        """Call, judge and remember. Never raises for what the implementation does.

        A case with a past of its own (``calls=12``, ``CASE then CASE``) is examined in a fresh process.
        """
        key = str(case)
        if key not in self._known:
            self._known[key] = with_past(self, case) if case.calls or case.earlier else self.run(case)
        return self._known[key]

    def wanted(self, case: Case) -> tuple[Expected, ...]:
        """What the oracle expects of a case, without calling the implementation; outputs in their storage formats."""
        bounded = self.judge.expect(case, case.without_garbage().arguments(self.implementation.meaning))
        outputs = case.specification.signature.outputs
        return tuple(expected(bound, case.output_dtype(spec)) for spec, bound in zip(outputs, bounded, strict=True))

    def call(self, case: Case, arguments: dict[str, Any]) -> Response | Finding:
        """Call once, without the oracle; a finding where nothing comes back that could be compared."""
        started = time.perf_counter()
        try:
            self.sandbox.send(self.caller.request(case, arguments, None, 1))
            [response] = self._responses(self.sandbox.receive())
        except WorkerDied as death:
            return Finding(death.kind, case, str(death))
        finally:
            self.clock.kernel += time.perf_counter() - started
        return self.judge.failed(case, response) or response

    def confirm(self, judgement: Judgement) -> Judgement:
        """The same finding as a fresh process has it; or, where that has none, with the calls before that bring it out.

        The case of what is returned reproduces the finding, as far as anything does.
        """
        if judgement.finding is None or judgement.case.calls or judgement.case.earlier or not self.sandbox.isolated:
            return judgement
        fresh = self._known[str(judgement.case)] = self.alone(judgement.case) if judgement.past else judgement
        return find_past(self, judgement) if fresh.finding is None else at_first(self, fresh)

    def alone(self, case: Case) -> Judgement:
        """What a fresh process makes of a case."""
        key = str(case)
        if key not in self._alone:
            self._alone[key] = self.run_afresh(case)
        return self._alone[key]

    def forget(self) -> None:
        """Examine afresh from now on, in a new worker without history."""
        self._known.clear()
        self.sandbox.restart()

    def soak(self, case: Case) -> Judgement:
        """Many identical calls: what shows in one of a hundred, or after a hundred."""
        until = time.monotonic() + SOAK_SECONDS
        judgement = self.run(case)
        for _ in range(SOAK_CALLS):
            if judgement.finding is not None or time.monotonic() > until:
                break
            judgement = self.run(case, identical=1)
        return judgement

    def run_afresh(self, case: Case, identical: int = 2) -> Judgement:
        """Run a case in a process that has run nothing else."""
        self.sandbox.restart()
        return self.run(case, identical)

    def run(self, case: Case, identical: int = 2) -> Judgement:
        """Run a case in the process that there is, which may have a past.

        Args:
            case: whose warm-up, if it is to have one, is judged as a case of its own where it is the first of its process.
            identical: how many calls to make on it.
        """
        if case.warm and not self.sandbox.past:
            first = self.run(self._warm_up(case))
            if first.finding is not None:
                return first
        past = tuple(self.sandbox.past)
        judgement = self._run(case, identical)
        return judgement if judgement.finding is None else replace(judgement, past=past)

    def _run(self, case: Case, identical: int) -> Judgement:
        if case.invariant:
            self.sandbox.past.append(case)
            return judge_by_invariant(self, case)
        started = time.perf_counter()
        meaning = self.implementation.meaning
        if self._last.case != case:
            self._last = _Prepared(case, case.arguments(meaning))
        arguments = self._last.arguments
        warm_up = self._warm_up(case) if case.warm else None
        request = self.caller.request(case, arguments, (warm_up, warm_up.arguments(meaning)) if warm_up else None, identical)
        made = time.perf_counter()
        try:
            self.sandbox.send(request)
            self.sandbox.past.append(replace(case, calls=1) if identical == 1 else case)
            if self._last.bounded is None:
                plain = case.without_garbage()
                self._last.bounded = self.judge.expect(case, arguments if plain is case else plain.arguments(meaning))
            bounded = self._last.bounded
            known = time.perf_counter()
            responses = self._responses(self.sandbox.receive())
        except WorkerDied as death:
            return Judgement(case, Finding(death.kind, case, str(death)))
        answered = time.perf_counter()
        judgement = self._failed_warm_up(case, responses) or read(self.judge.judge(case, responses, bounded))
        ended = time.perf_counter()
        self.clock.making += made - started
        self.clock.oracle += known - made
        self.clock.kernel += answered - known
        self.clock.judging += ended - answered
        return judgement

    def _responses(self, reply: dict[str, Any]) -> list[Response]:
        try:
            return self.caller.responses(reply)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise self.sandbox.reject("the answer is not one that attest's worker gives") from None

    def _warm_up(self, case: Case) -> Case:
        """The call before; as the case itself in its options where the implementation's restrictions exclude another."""
        warm_up = case.warm_up(self.implementation.options)
        return warm_up if warm_up.consistent and self.implementation.admits(warm_up.facts()) else case.warm_up()

    def _failed_warm_up(self, case: Case, responses: list[Response]) -> Judgement | None:
        if not case.warm or responses[0].exception is None:
            return None
        # The warm-up is a case of its own: say so rather than blame the one that was asked for.
        return Judgement(case, self.judge.failed(self._warm_up(case), responses[0]))
