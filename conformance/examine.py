"""One case through an implementation and the oracle, at the same time: the worker computes while the judge's side does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from conformance.calling import Caller, Response
from conformance.cases.case import Case
from conformance.invariants.check import judge_by_invariant
from conformance.judge import Finding, Judge, Judgement
from conformance.probes import read
from conformance.registry import Implementation
from conformance.sandbox import Sandbox, WorkerDied
from oracle.readings import Expected, expected
from oracle.readings.contract import PrecisionContract

__all__ = ["Clock", "Examiner"]


@dataclass
class Clock:
    """Where the time of a hunt goes, in seconds."""

    making: float = 0.0
    oracle: float = 0.0
    kernel: float = 0.0
    judging: float = 0.0


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

    def examine(self, case: Case) -> Judgement:
        """Call, judge and remember. Never raises for what the implementation does."""
        key = str(case)
        if key not in self._known:
            self._known[key] = self._examine(case)
        return self._known[key]

    def wanted(self, case: Case) -> tuple[Expected, ...]:
        """What the oracle expects of a case, without calling the implementation; outputs in their storage formats."""
        bounded = self.judge.expect(case, case.without_garbage().arguments(self.implementation.meaning))
        return tuple(
            expected(bound, case.storage(spec)) for spec, bound in zip(case.specification.signature.outputs, bounded, strict=True)
        )

    def call(self, case: Case, arguments: dict[str, Any]) -> Response | Finding:
        """Call once, without the oracle; a finding where nothing comes back that could be compared."""
        started = time.perf_counter()
        request = self.caller.request(case, arguments, None)
        request["calls"] = request["calls"][:1]
        try:
            self.sandbox.send(request)
            [response] = self.caller.responses(self.sandbox.receive())
        except WorkerDied as death:
            return Finding(death.kind, case, str(death))
        finally:
            self.clock.kernel += time.perf_counter() - started
        return self.judge.failed(case, response) or response

    def forget(self) -> None:
        """Examine afresh from now on, in a new worker without history."""
        self._known.clear()
        self.sandbox.restart()

    def _examine(self, case: Case) -> Judgement:
        if case.invariant:
            return judge_by_invariant(self, case)
        started = time.perf_counter()
        meaning = self.implementation.meaning
        arguments = case.arguments(meaning)
        warm_up = self._warm_up(case) if case.warm else None
        request = self.caller.request(case, arguments, (warm_up, warm_up.arguments(meaning)) if warm_up else None)
        made = time.perf_counter()
        try:
            self.sandbox.send(request)
            plain = case.without_garbage()
            bounded = self.judge.expect(case, arguments if plain is case else plain.arguments(meaning))
            known = time.perf_counter()
            reply = self.sandbox.receive()
        except WorkerDied as death:
            return Judgement(case, Finding(death.kind, case, str(death)))
        answered = time.perf_counter()
        responses = self.caller.responses(reply)
        judgement = self._failed_warm_up(case, responses) or read(self.judge.judge(case, responses, bounded))
        ended = time.perf_counter()
        self.clock.making += made - started
        self.clock.oracle += known - made
        self.clock.kernel += answered - known
        self.clock.judging += ended - answered
        return judgement

    def _warm_up(self, case: Case) -> Case:
        """The call before; as the case itself in its options where the implementation's restrictions exclude another."""
        warm_up = case.warm_up(self.implementation.options)
        return warm_up if self.implementation.admits(warm_up.facts()) else case.warm_up()

    def _failed_warm_up(self, case: Case, responses: list[Response]) -> Judgement | None:
        if not case.warm or responses[0].exception is None:
            return None
        # The warm-up is a case of its own: say so rather than blame the one that was asked for.
        return Judgement(
            case, Finding("exception", self._warm_up(case), f"raised {responses[0].exception}", details=responses[0].traceback)
        )
