"""The judge: outputs against what the oracle expects, element by element, within the budget.

Nothing passes by being incomparable: a NaN, an infinity, a wrong shape, dtype or device is a finding, and so is an
argument that was written to, an output that shares memory with an argument, and one that a later call changes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from conformance.cases.case import Case
from conformance.isolation.backends import BACKENDS
from conformance.isolation.calling import Output, Response
from conformance.registry import Implementation
from oracle.readings import EXACT_KINDS, Alternatives, Expected, budget, expected
from oracle.readings.bounded import Bounded
from oracle.readings.contract import PrecisionContract

__all__ = ["Finding", "Judge", "Judgement", "compare", "settled", "worst_element"]

# More than any pool that is made once; a call that leaves one thread or process behind each time gets there soon.
LEFT_RUNNING = 64 + (os.cpu_count() or 1)

# An error of so much of the budget may come from another decision, which changed little, rather than from rounding.
DOUBTFUL = 0.5


@dataclass(frozen=True)
class Finding:
    """Evidence that an implementation is wrong.

    Attributes:
        kind: wrong-value, nan, infinity, invariant, shape, dtype, device, type, exception, crash, hang, exit, memory,
            pages, tampering, input-changed, aliases-input, requires-grad, changed-later, global-state,
            left-running, unrepeatable, depends-on-history.
        case: the call.
        message: one sentence.
        where: output and index of the worst element.
        got, expected, budget: there.
        ratio: of the error to the budget; inf where the kind has no size.
        details: the end of a traceback.
        reads: what the output of a probe says was read instead of what was meant.
    """

    kind: str
    case: Case
    message: str
    where: str = ""
    got: float | None = None
    expected: float | None = None
    budget: float | None = None
    ratio: float = math.inf
    details: str = ""
    reads: str = ""


@dataclass(frozen=True)
class Judgement:
    """What the judge says of one case.

    Attributes:
        case: the call.
        finding: None if it passes.
        ratio: worst error over budget of a case that passes.
        outputs: arrays in the order of the signature, where the call returned.
        wanted: what the oracle expects of each.
        past: the cases that the process had run before, where there is a finding.
        repeats: whether a second identical call gave the same bits.
        near_ties: rows in which a discrete decision had several legitimate outcomes.
        widened: rows of these that were judged by a budget for all outcomes at once, as they had too many.
    """

    case: Case
    finding: Finding | None
    ratio: float = 0.0
    outputs: tuple[np.ndarray, ...] = ()
    wanted: tuple[Expected, ...] = field(default=(), repr=False)
    past: tuple[Case, ...] = field(default=(), repr=False)
    repeats: bool = True
    near_ties: int = 0
    widened: int = 0


def compare(got: np.ndarray, wanted: Expected) -> tuple[np.ndarray, np.ndarray]:
    """Error over budget for every element, and whether it agrees. Equal infinities and expected NaNs agree.

    Elements whose budget is infinite agree with anything: there the contract's range was left. Where a discrete decision has
    several legitimate outcomes, each row is compared with the one that it fits best; an output that depends on what another one
    shows to be decided, with the exact outcome: see `settled` for both.
    """
    return _ratios(got, settled((got,), (wanted,))[0])


def settled(outputs: Sequence[np.ndarray], wanted: Sequence[Expected]) -> tuple[Expected, ...]:
    """What is expected given the discrete decisions that the implementation seems to have taken, the same for all outputs.

    A row that the exact decision does not explain, or not well, is held against the other legitimate ones, and at last, where
    there are too many to try, against the budget that holds for all. What no decision explains is held against the one that
    comes nearest.
    """
    given = _as_shown(outputs, wanted)
    deciding = [(index, want.alternatives) for index, want in enumerate(wanted) if want.alternatives is not None]
    if not deciding:
        return tuple(given)

    def worst_of(candidates: Mapping[int, Expected]) -> np.ndarray:
        rows = [own.worst(_ratios(outputs[index], candidates[index])[0]) for index, own in deciding]
        return np.max(rows, axis=0)

    for index, _ in deciding:
        given[index] = replace(wanted[index], alternatives=None)
    worst = worst_of(dict(enumerate(given)))
    for others in zip(*(own for _, own in deciding), strict=True) if (worst > DOUBTFUL).any() else ():
        other = {index: one for (index, _), one in zip(deciding, others, strict=True)}
        ratio = worst_of(other)
        better = (worst > DOUBTFUL) & (ratio < worst)
        if better.any():
            worst = np.where(better, ratio, worst)
            for index, own in deciding:
                given[index] = _merged(given[index], other[index], own.spread(better))
        if not (worst > DOUBTFUL).any():
            break
    return tuple(given)


def _as_shown(outputs: Sequence[np.ndarray], wanted: Sequence[Expected]) -> list[Expected]:
    """What is expected given the decision that one of the outputs shows, the exact one where that output is not among them."""
    shown = [want.shown for want in wanted]
    if all(decision is None for decision in shown):
        return list(wanted)
    if len(outputs) == 1 and shown[0] is not None and shown[0].output.position != shown[0].shown_by:
        return [replace(wanted[0], shown=None)]
    return [
        want if decision is None else decision.given(outputs[decision.shown_by]) for want, decision in zip(wanted, shown, strict=True)
    ]


def _merged(given: Expected, other: Expected, elements: np.ndarray) -> Expected:
    """What is expected, with some elements taken from another decision."""
    wide = other.wide & elements if other.wide is not None else given.wide
    return Expected(np.where(elements, other.value, given.value), np.where(elements, other.budget, given.budget), wide=wide)


def _ratios(got: np.ndarray, wanted: Expected) -> tuple[np.ndarray, np.ndarray]:
    value, allowed = wanted.value, wanted.budget
    wide = got.astype(value.dtype)
    with np.errstate(all="ignore"):
        error = np.abs(wide - value)
        ratio = np.where(error == 0, 0.0, error / allowed).astype(np.float64)
    same = (wide == value) | (np.isnan(wide) & np.isnan(value))
    ratio[same | (allowed == np.inf)] = 0.0
    ratio[np.isnan(ratio)] = np.inf
    return ratio, ratio <= 1.0


class Judge:
    """Judges the cases of one implementation in one dtype under one contract."""

    def __init__(self, implementation: Implementation, dtype: str, contract: PrecisionContract | None = None, device: str = "cpu") -> None:
        self.implementation, self.dtype, self.device = implementation, dtype, device
        self.contract = contract or implementation.precision(dtype)

    def expect(self, case: Case, arguments: dict[str, Any]) -> tuple[Bounded, ...]:
        """The oracle's answer under the declared conventions, before it is rounded to the output."""
        return budget(case.specification, {**arguments, **self.implementation.meaning}, self.contract)

    def judge(self, case: Case, responses: list[Response], bounded: tuple[Bounded, ...]) -> Judgement:
        """Judge the calls of a case: first its warm-up, if it has one, then the case itself, twice."""
        judged = responses[1:] if case.warm else responses
        for response in judged:
            failed = self.failed(case, response)
            if failed is not None:
                return Judgement(case, failed)
        wanted = self._wanted(judged[0], bounded)
        outputs = tuple(output.array for output in judged[0].outputs if output.array is not None)
        given = self._given(judged[0].outputs, wanted)
        finding, ratio = self._compare(case, judged[0].outputs, given)
        finding, repeats = finding or self._manners(case, responses), True
        for response in judged[1:]:
            if any(not _identical(a, b) for a, b in zip(judged[0].outputs, response.outputs, strict=False)):
                repeats = False
                later, larger = self._compare(case, response.outputs, self._given(response.outputs, self._wanted(response, bounded)))
                ratio = max(ratio, larger)
                if finding is None and later is not None:
                    message = f"a second identical call is wrong where the first was right: {later.message}"
                    finding = replace(later, kind="unrepeatable", message=message)
        near_ties = max((want.near_ties for want in wanted), default=0)
        widened = max((_rows(want.alternatives, one.wide) for want, one in zip(wanted, given, strict=True)), default=0)
        return Judgement(case, finding, ratio, outputs, wanted, repeats=repeats, near_ties=near_ties, widened=widened)

    def failed(self, case: Case, response: Response) -> Finding | None:
        """Findings that leave nothing to compare."""
        if response.exception is not None:
            if response.found:
                return Finding(response.found, case, response.exception)
            return Finding("exception", case, f"raised {response.exception}", details=response.traceback)
        names = case.specification.signature.outputs
        least = sum(not spec.optional for spec in names)
        if not least <= response.count <= len(names) and len(names) > 1:
            wanted = ", ".join(spec.name for spec in names)
            number = str(least) if least == len(names) else f"{least} to {len(names)}"
            return Finding("type", case, f"returned {response.count} outputs, but should return {number}: ({wanted})")
        for spec, output in zip(names, response.outputs, strict=False):
            shape, dtypes = case.stored_shape(spec), case.output_dtypes(spec)
            arrays = BACKENDS[self.implementation.backend].array
            if output.type is not None:
                return Finding("type", case, f"{spec.name} is a {output.type}, but should be a {arrays}")
            if output.shape != shape:
                return Finding("shape", case, f"{spec.name}.shape={output.shape}, but should be {shape} ({' '.join(spec.dims)})")
            if output.dtype not in dtypes:
                return Finding("dtype", case, f"{spec.name}.dtype={output.dtype}, but should be {' or '.join(dtypes)}")
            # What takes no arrays is not told of a device.
            if case.arrays and output.device is not None and output.device != self.device.partition(":")[0]:
                return Finding("device", case, f"{spec.name}.device={output.device}, but should be {self.device}")
            if output.array is None:
                return Finding("type", case, f"{spec.name} is a {arrays} without readable elements ({output.unreadable})")
        return None

    def _manners(self, case: Case, responses: list[Response]) -> Finding | None:
        """Findings on what a call did besides computing."""
        for response in responses:
            for name in response.inputs_changed:
                return Finding("input-changed", case, f"the call wrote to its argument {name}")
            for output in response.outputs:
                if output.aliases_input:
                    return Finding("aliases-input", case, f"{output.name} shares memory with an argument")
                if output.shares_memory:
                    return Finding("changed-later", case, f"{output.name} lies in the memory of an earlier call's output")
                if output.requires_grad:
                    return Finding("requires-grad", case, f"{output.name} requires a gradient although no argument does")
            if response.changed_later:
                return Finding("changed-later", case, "an output changed after it was returned")
            if response.changed_earlier:
                return Finding("changed-later", case, "the output of an earlier case changed")
            if response.state_changed:
                return Finding("global-state", case, f"the call changed {'; '.join(response.state_changed)}")
            if response.running > LEFT_RUNNING:
                message = f"{response.running} threads and child processes are left running, but should be at most {LEFT_RUNNING}"
                return Finding("left-running", case, message)
        return None

    def _wanted(self, response: Response, bounded: tuple[Bounded, ...]) -> tuple[Expected, ...]:
        return tuple(
            expected(bound, output.array.dtype.name)
            for output, bound in zip(response.outputs, bounded, strict=False)
            if output.array is not None
        )

    def _given(self, outputs: tuple[Output, ...], wanted: tuple[Expected, ...]) -> tuple[Expected, ...]:
        """What is expected given the decisions that the implementation took."""
        return settled([output.array for output in outputs if output.array is not None], wanted)

    def _compare(self, case: Case, outputs: tuple[Output, ...], wanted: tuple[Expected, ...]) -> tuple[Finding | None, float]:
        worst, finding = 0.0, None
        for output, want in zip(outputs, wanted, strict=True):
            assert output.array is not None, "checked before"
            ratio, agrees = compare(output.array, want)
            if ratio.size == 0:
                continue
            # A budget for all outcomes of a decision says nothing of rounding.
            largest = float(ratio.max(initial=0.0, where=True if want.wide is None else ~want.wide | ~agrees))
            if not agrees.all() and (finding is None or largest > worst):
                finding = worst_element(case, output.name, output.array, want, ratio, int((~agrees).sum()))
            worst = max(worst, largest)
        return finding, worst


def _rows(alternatives: Alternatives | None, elements: np.ndarray | None) -> int:
    """How many rows of a decision some elements lie in."""
    if alternatives is None or elements is None:
        return 0
    return int(alternatives.worst(elements.astype(np.float64)).sum())


def _identical(first: Output, second: Output) -> bool:
    """Whether two outputs agree in every bit."""
    return first.array is not None and second.array is not None and first.array.tobytes() == second.array.tobytes()


def worst_element(case: Case, name: str, got: np.ndarray, want: Expected, ratio: np.ndarray, wrong: int) -> Finding:
    """The finding of one output: what stands where the error is largest, and how many elements are wrong."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    value, exact, allowed = float(got[index]), float(want.value[index]), float(want.budget[index])
    kind = "nan" if np.isnan(value) else "infinity" if np.isinf(value) else "wrong-value"
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    meant = case.specification.in_words
    place = where if meant is None else f"{where} ({meant(case.options, index)})"
    within = "" if got.dtype.kind in EXACT_KINDS else f" within {allowed:.3g}"
    message = f"{place} is {value:.9g}, but should be {exact:.9g}{within}; {wrong} of {got.size} elements are wrong"
    return Finding(kind, case, message, where, value, exact, allowed, float(ratio[index]))
