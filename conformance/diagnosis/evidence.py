"""Evidence: what an implementation returned, and whether a wrong meaning would have returned the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np

from conformance.adequacy import Suspect, lift, run_suspect
from conformance.cases.case import Case
from conformance.judge import Judgement, compare, settled
from conformance.pitfalls import Setting
from conformance.registry import Implementation
from oracle.readings import EXACT_KINDS, Expected, budget, expected
from oracle.readings.contract import PrecisionContract

__all__ = ["MISCALLED", "NUMERICAL", "Claim", "Evidence"]

# Kinds of finding that a wrong meaning explains; of the others, some come from arguments passed in another way.
NUMERICAL = ("wrong-value", "nan", "infinity")
MISCALLED = (*NUMERICAL, "exception", "shape")

# What is left of an error that is explained: nearly nothing, or much less than a budget, else what is alike because the
# budget is wide would explain everything.
LEFT, LEFT_OF_BUDGET = 0.25, 0.5


@dataclass(frozen=True)
class Claim:
    """What an implementation does otherwise.

    Attributes:
        text: a pitfall's name, or a sentence without its subject.
        options: of the command line that declare it, where it may be meant.
    """

    text: str
    options: str = ""


@dataclass
class Evidence:
    """What an implementation did, and by which meaning that is judged.

    Attributes:
        implementation: as called.
        meaning: conventions by which the outputs are judged.
        contract: likewise.
        failing: refuted cases, the shrunk one first.
        passing: cases that agreed with the oracle.
    """

    implementation: Implementation
    meaning: dict[str, str]
    contract: PrecisionContract
    failing: list[Judgement]
    passing: list[Judgement]
    _lifted: dict[str, tuple[dict[str, Any], Setting]] = field(default_factory=dict)

    @property
    def numerical(self) -> bool:
        """Whether all failures are wrong numbers."""
        return all(judgement.finding is not None and judgement.finding.kind in NUMERICAL for judgement in self.failing)

    def meaning_instead(self, meaning: dict[str, str]) -> Evidence:
        """The same outputs, to be judged by another meaning."""
        return replace(self, meaning=meaning, _lifted={})

    def arguments(self, case: Case) -> dict[str, Any]:
        """As the implementation got them, with the conventions."""
        return {**case.arguments(self.implementation.meaning), **self.meaning}

    def wanted(self, judgement: Judgement) -> tuple[Expected, ...]:
        """What the oracle expects by this meaning and contract."""
        case = judgement.case
        bounds = budget(case.specification, self.arguments(case), self.contract)
        return tuple(expected(bound, got.dtype.name) for got, bound in zip(judgement.outputs, bounds, strict=False))

    def ratio(self, judgement: Judgement) -> float:
        """Largest error over budget by this meaning and contract."""
        return _largest_ratio(judgement.outputs, self.wanted(judgement))

    def agrees(self, judgement: Judgement) -> bool:
        """Whether the outputs are right by this meaning and contract."""
        return bool(judgement.outputs) and self.ratio(judgement) <= 1.0

    def reproduces(self, suspect: Suspect, share: float) -> bool:
        """Whether a mistake explains the shrunk case, this share of all failing ones, and contradicts no passing one."""
        if not self.as_wrong(suspect, self.failing[0]):
            return False
        if sum(not self.as_wrong(suspect, judgement) for judgement in self.failing) > (1 - share) * len(self.failing):
            return False
        return not self.contradicted(suspect)

    def contradicted(self, suspect: Suspect) -> bool:
        """Whether a mistake would have shown on a case that passed."""
        ran = ((judgement, self._run(suspect, judgement)) for judgement in self.passing)
        return any(outputs is not None and not _alike(judgement, outputs) for judgement, outputs in ran)

    def as_wrong(self, suspect: Suspect, judgement: Judgement) -> bool:
        """Whether a mistake is wrong on a case that failed, and in the same way."""
        outputs = self._run(suspect, judgement)
        if outputs is None or not _alike(judgement, outputs) or _largest_ratio(outputs, judgement.wanted) <= 1.0:
            return False
        before = _largest_ratio(judgement.outputs, judgement.wanted)
        instead = tuple(
            Expected(other.astype(want.value.dtype), want.budget) for other, want in zip(outputs, judgement.wanted, strict=False)
        )
        return before == inf or _largest_ratio(judgement.outputs, instead) <= max(LEFT_OF_BUDGET, before * LEFT)

    def _run(self, suspect: Suspect, judgement: Judgement) -> tuple[np.ndarray, ...] | None:
        """What a mistake would have returned."""
        key = str(judgement.case)
        if key not in self._lifted:
            arguments, setting = lift(judgement.case, self.arguments(judgement.case), self.implementation.layout)
            tile = {"block_k": setting.tunables["block_q"]} if "block_q" in setting.tunables else {}
            self._lifted[key] = arguments, replace(setting, tunables={**tile, **setting.tunables})
        return run_suspect(suspect, *self._lifted[key])


def _largest_ratio(outputs: tuple[np.ndarray, ...], wanted: tuple[Expected, ...]) -> float:
    given = settled(outputs, wanted[: len(outputs)])
    return max(float(compare(got, want)[0].max(initial=0.0)) for got, want in zip(outputs, given, strict=False))


def _shows(wanted: tuple[Expected, ...]) -> bool:
    """Whether an output shows a discrete decision."""
    return any(want.shown is not None for want in wanted)


def _alike(judgement: Judgement, outputs: tuple[np.ndarray, ...]) -> bool:
    """Whether two computations of the same wrong meaning agree: each may err by the budget, which the mistake may magnify.

    Where numbers left the range of the format in both, what comes out depends on the order of operations: there it is
    enough that both are wrong.
    """
    if _shows(judgement.wanted) and max(_largest_ratio(one, judgement.wanted) for one in (judgement.outputs, outputs)) <= 1.0:
        return True  # both took a decision that is legitimate, if not the same one
    for got, other, want in zip(judgement.outputs, outputs, settled(judgement.outputs, judgement.wanted), strict=False):
        if other.dtype.kind in EXACT_KINDS:
            if not np.array_equal(got, other):
                return False
            continue
        wrong = other.astype(want.value.dtype)
        with np.errstate(all="ignore"):
            magnified = np.nan_to_num(np.abs(wrong) / np.abs(want.value), nan=1.0, posinf=1.0)
            largest = np.nanmax(np.abs(want.value), initial=0.0, where=np.isfinite(want.value))
            # Where the right number is exact or comes from fewer terms, the wrong one may err as the others do.
            widest = want.budget.max(initial=0.0, where=np.isfinite(want.budget))
            elsewhere = widest * (np.maximum(np.abs(wrong) / largest, 1.0) if largest else 1.0)
            allowed = 2 * np.maximum(want.budget * np.maximum(magnified, 1.0), np.nan_to_num(elsewhere, nan=0.0, posinf=0.0))
        overflowed = ~np.isfinite(got.astype(np.float64)) & ~compare(other, want)[1] & (~np.isfinite(wrong)).any()
        if not (compare(got, Expected(wrong, allowed))[1] | overflowed).all():
            return False
    return True
