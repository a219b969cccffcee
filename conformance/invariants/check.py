"""Judging a call by an invariant instead of by the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from conformance.cases.case import Case
from conformance.errors import UsageError
from conformance.invariants import Invariant, Plan, Setting, get_invariant
from conformance.invariants.bound import error_bounds
from conformance.invariants.calls import Call, Outputs
from conformance.isolation.calling import Response
from conformance.judge import Finding, Judgement, compare, worst_element
from conformance.probes import reading
from conformance.registry import Implementation
from oracle.readings import Expected, expected
from oracle.readings.bounded import Bounded
from oracle.readings.contract import PrecisionContract

if TYPE_CHECKING:
    from conformance.examine import Examiner

__all__ = ["judge_by_invariant", "require_invariant", "speaks_of"]


def _plan(case: Case, implementation: Implementation, contract: PrecisionContract) -> tuple[Invariant, Call, Plan | None]:
    invariant = get_invariant(case.invariant, case.method)
    setting = Setting(implementation, contract, np.random.default_rng(sum(case.dims.values())))
    call = Call.of(case, implementation.meaning)
    plan = invariant.plan(call, setting)
    if plan is not None and not all(implementation.admits(related.case.facts()) for related in plan.calls):
        plan = None
    return invariant, call, plan


def speaks_of(case: Case, implementation: Implementation, contract: PrecisionContract) -> bool:
    """Whether the invariant that a case names says anything of it."""
    return _plan(case, implementation, contract)[2] is not None


def require_invariant(case: Case, implementation: Implementation, contract: PrecisionContract) -> None:
    """Raise `UsageError` unless the invariant of a case, if it names one, is known and says something of it."""
    if case.invariant and not speaks_of(case, implementation, contract):
        raise UsageError(f"invariant={case.invariant!r} says nothing of this case, but should [{case}]")


def judge_by_invariant(examiner: Examiner, case: Case) -> Judgement:
    """Make the calls of a case's invariant and compare them; a case of which it says nothing passes."""
    contract, implementation = examiner.judge.contract, examiner.implementation
    invariant, call, plan = _plan(case, implementation, contract)
    if plan is None:
        return Judgement(case, None)
    answers: list[Outputs] = []
    for index, own in enumerate((call, *plan.calls)):
        response = examiner.call(own.case, own.arguments)
        if isinstance(response, Finding):
            if own.may_refuse and response.kind == "exception":
                return Judgement(case, None)
            which = f"call {index + 1} of {len(plan.calls) + 1} of the invariant {invariant.name}"
            return Judgement(case, replace(response, case=case, message=f"{response.message} [{which}]"))
        answers.append(_bounded(own, response, implementation, contract))
    predicted = plan.predict(answers)
    judgement = _compared(case, invariant, answers[0], predicted)
    if judgement.finding is None and implementation.meaning.get("empty_row") != "nan":
        judgement = replace(judgement, finding=_not_finite(case, invariant, answers[0], predicted))
    return judgement


def _bounded(call: Call, response: Response, implementation: Implementation, contract: PrecisionContract) -> Outputs:
    """What a call returned, with how far each element may be from the exact answer."""
    extents = error_bounds(call.case.method, {**call.arguments, **implementation.meaning}, contract)
    outputs = []
    for output, extent in zip(response.outputs, extents, strict=True):
        assert output.array is not None, "a response that can be compared has arrays"
        got = output.array.astype(np.float64)
        with np.errstate(invalid="ignore"):
            # What is rounded to the output's format is no larger than this, whatever was returned.
            inside = np.clip(got, -extent.largest, extent.largest)
        budget = expected(Bounded(inside, np.broadcast_to(extent.error, got.shape), contract), output.array.dtype.name).budget
        outputs.append(Expected(got, budget))
    return tuple(outputs)


def _compared(case: Case, invariant: Invariant, own: Outputs, predicted: Outputs) -> Judgement:
    worst, finding = 0.0, None
    for spec, got, other in zip(case.specification.signature.outputs, own, predicted, strict=True):
        want = Expected(other.value, np.broadcast_to(got.budget + other.budget, got.value.shape))
        ratio, agrees = compare(got.value, want)
        largest = float(ratio.max(initial=0.0))
        if not agrees.all() and (finding is None or largest > worst):
            found = worst_element(case, spec.name, got.value, want, ratio, int((~agrees).sum()))
            said = reading(case, got.value, want) if spec.name == "out" else ""
            finding = replace(found, kind="invariant", message=f"{invariant.name}: {invariant.statement}, but {found.message}", reads=said)
        worst = max(worst, largest)
    return Judgement(case, finding, worst)


def _not_finite(case: Case, invariant: Invariant, own: Outputs, predicted: Outputs) -> Finding | None:
    """NaN or infinity, which calls may agree on, although the arguments are finite and something is claimed."""
    for spec, got, other in zip(case.specification.signature.outputs, own, predicted, strict=True):
        empty = (got.value == -np.inf) & (spec.kind == "statistic")  # the logsumexp of a row without keys
        wrong = ~np.isfinite(got.value) & ~empty & (got.budget + other.budget < np.inf)
        if wrong.any():
            index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            where, value = f"{spec.name}[{', '.join(map(str, index))}]", float(got.value[index])
            return Finding("invariant", case, f"{invariant.name}: the arguments are finite, but {where} is {value}", where, value)
    return None
