"""Diagnosis: which known mistake, convention or precision explains what a refuted implementation returned.

An explanation must reproduce the outputs on every failing case that it applies to, and agree with the right answer on
the passing ones as the implementation does. It is named, never guessed into a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from conformance.adequacy import Suspect, lift, run_suspect, suspects
from conformance.judge import Judgement, compare
from conformance.pitfalls import Setting
from conformance.registry import Implementation, conventions_of
from oracle import get_method
from oracle.readings import Expected, budget, expected
from oracle.readings.contract import CONTRACTS, PrecisionContract

__all__ = ["explain"]

# Kinds of finding that a wrong meaning explains; the others are about what a call did besides computing.
NUMERICAL = ("wrong-value", "nan", "infinity")

# An explanation reproduces the shrunk case and at least this share of all failing ones; a computation that overflows may
# come out differently in the rest.
SHARE = 0.5


def explain(
    implementation: Implementation, failing: Sequence[Judgement], passing: Sequence[Judgement], contract: PrecisionContract
) -> list[str]:
    """Explanations, the most specific first; empty where nothing known fits.

    Args:
        implementation: as declared.
        failing: refuted cases with outputs; the shrunk one first.
        passing: cases that agreed with the oracle.
        contract: under which they were judged.
    """
    failing = [judgement for judgement in failing if judgement.finding is not None and judgement.finding.kind in NUMERICAL]
    if not failing:
        return []
    found = list(_conventions(implementation, failing, passing, contract))
    found += _pitfalls(implementation, failing, passing)
    return found or list(_precisions(implementation, failing, passing))


def _conventions(
    implementation: Implementation, failing: Sequence[Judgement], passing: Sequence[Judgement], contract: PrecisionContract
) -> Iterable[str]:
    method = get_method(implementation.method)
    for name, values in conventions_of(method).items():
        if name not in method.conventions:
            continue
        for value in values:
            if value == implementation.meaning.get(name, values[0]):
                continue
            meaning = {**implementation.meaning, name: value}
            if all(_meets(judgement, meaning, implementation, contract) for judgement in [*failing, *passing]):
                yield f"follows convention {name}={value}; declare it if that is meant (--convention {name}={value})"


def _precisions(implementation: Implementation, failing: Sequence[Judgement], passing: Sequence[Judgement]) -> Iterable[str]:
    dtype = failing[0].case.dtype
    for contract in CONTRACTS.values():
        if contract.output.name == dtype and all(_meets(j, implementation.meaning, implementation, contract) for j in [*failing, *passing]):
            yield f"precision: meets contract {contract.name}; declare it if that is meant (--contract {contract.name})"
            return


def _meets(judgement: Judgement, meaning: dict[str, str], implementation: Implementation, contract: PrecisionContract) -> bool:
    case = judgement.case
    arguments = {**case.arguments(implementation.meaning), **meaning}
    bounds = budget(case.specification, arguments, contract)
    return all(bool(compare(got, expected(bound, got.dtype.name))[1].all()) for got, bound in zip(judgement.outputs, bounds, strict=True))


def _pitfalls(implementation: Implementation, failing: Sequence[Judgement], passing: Sequence[Judgement]) -> list[str]:
    lifted = {
        str(judgement.case): lift(judgement.case, {**judgement.case.arguments(implementation.meaning), **implementation.meaning})
        for judgement in [*failing, *passing]
    }
    named: dict[str, None] = {}
    for suspect in suspects(implementation.method):
        if suspect.pitfall.name not in named and _reproduces(suspect, failing, passing, lifted):
            named[suspect.pitfall.name] = None
    return list(named)


def _reproduces(
    suspect: Suspect, failing: Sequence[Judgement], passing: Sequence[Judgement], lifted: dict[str, tuple[dict[str, Any], Setting]]
) -> bool:
    def alike(judgement: Judgement) -> bool | None:
        outputs = run_suspect(suspect, *lifted[str(judgement.case)])
        return None if outputs is None else _alike(judgement, outputs)

    if not alike(failing[0]):
        return False
    if sum(alike(judgement) is not True for judgement in failing) > (1 - SHARE) * len(failing):
        return False
    return all(alike(judgement) is not False for judgement in passing)


def _alike(judgement: Judgement, outputs: tuple[np.ndarray, ...]) -> bool:
    """Whether two computations of the same wrong meaning agree: each may err by the budget, which the mistake may magnify.

    Where a number left the range of the format, what comes out depends on the order of operations: there it is enough
    that both are wrong.
    """
    for got, other, want in zip(judgement.outputs, outputs, judgement.wanted, strict=False):
        wrong = other.astype(want.value.dtype)
        with np.errstate(all="ignore"):
            magnified = np.nan_to_num(np.abs(wrong) / np.abs(want.value), nan=1.0, posinf=1.0)
            largest = np.nanmax(np.abs(want.value), initial=0.0, where=np.isfinite(want.value))
            elsewhere = want.budget.max(initial=0.0, where=np.isfinite(want.budget)) * (np.abs(wrong) / largest if largest else 1.0)
            allowed = 2 * np.maximum(want.budget * np.maximum(magnified, 1.0), np.nan_to_num(elsewhere, nan=0.0, posinf=0.0))
        overflowed = ~np.isfinite(got.astype(np.float64)) & ~compare(other, want)[1]
        if not (compare(got, Expected(wrong, allowed))[1] | overflowed).all():
            return False
    return True
