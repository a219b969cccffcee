"""Explanations: which known mistake, convention or precision makes an implementation return what it did.

An explanation must reproduce the outputs on every failing case that it applies to, and agree with the right answer on
the passing ones as the implementation does. It is named, never guessed into a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, permutations
from math import inf
from typing import Any

import numpy as np

from conformance.adequacy import Suspect, lift, run_suspect, suspects
from conformance.cases.case import Case
from conformance.cases.shapes import WIDTH_LETTERS
from conformance.judge import Judgement, compare
from conformance.pitfalls import Setting
from conformance.pitfalls.combined import always, together
from conformance.registry import CALLING_CONVENTIONS, Implementation, conventions_of
from conformance.trigger import Trigger
from oracle import get_method
from oracle.readings import Expected, budget, expected
from oracle.readings.contract import CONTRACTS, PrecisionContract

__all__ = ["NUMERICAL", "Evidence", "explain", "pitfalls_named"]

# Kinds of finding that a wrong meaning explains; of the others, some come from arguments passed in another way.
NUMERICAL = ("wrong-value", "nan", "infinity")
MISCALLED = (*NUMERICAL, "exception", "shape")

# Cases that an explanation is held against.
FAILING, PASSING = 40, 40

# An explanation reproduces the shrunk case and every failing one. Where none does, because a computation that overflows
# comes out differently or because there is another mistake, one is named that reproduces a smaller share.
EVERY, NEARLY_ALL, SHARE = 1.0, 0.9, 0.5

# Failing cases that one mistake leaves to another: a single one may be an accident of rounding.
MISSED = 2

# Cases of either kind on which another way of calling must work, and how many of them must tell the axes apart.
TRIED, ENOUGH = 8, 3

# Failing cases that tell whether a second explanation is worth looking for beside a first.
GLANCE = 6

# Rounding has no sharp edge: a condition on sizes and options that nearly all cases inside of it fail on is another matter.
SHARP = 0.95

# Sizes of tiles that kernels use, besides those that a certificate rules out.
MORE_TILES = (8, 256)


# Added to a mistake that explains what happens where the trigger holds, and would have shown elsewhere as well; between two.
THERE, TOGETHER = ", only where the trigger holds", " together with "

Call = Callable[[Implementation, Case], Judgement]


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

    def arguments(self, case: Case) -> dict[str, Any]:
        """As the implementation got them, with the conventions."""
        return {**case.arguments(self.implementation.meaning), **self.meaning}

    def run(self, suspect: Suspect, judgement: Judgement) -> tuple[np.ndarray, ...] | None:
        """What a mistake would have returned."""
        key = str(judgement.case)
        if key not in self._lifted:
            arguments, setting = lift(judgement.case, self.arguments(judgement.case))
            tile = {"block_k": setting.tunables["block_q"]} if "block_q" in setting.tunables else {}
            self._lifted[key] = arguments, replace(setting, tunables={**tile, **setting.tunables})
        return run_suspect(suspect, *self._lifted[key])


def explain(evidence: Evidence, call: Call, trigger: Trigger | None, seconds: float) -> list[str]:
    """Explanations, those that say most first; empty where nothing known fits.

    Args:
        evidence: what there is to explain.
        call: judges a case of the implementation, declared otherwise.
        trigger: when the failure happens, as far as that is known.
        seconds: of the judge's own time at most that looking for pairs may take.
    """
    until = time.process_time() + seconds
    failing = [judgement for judgement in evidence.failing if judgement.finding is not None and judgement.finding.kind in MISCALLED]
    evidence = replace(evidence, failing=failing[:FAILING], passing=evidence.passing[:PASSING])
    declared: list[tuple[Claim, ...]] = [(claim,) for claim in _calling(evidence, call)] if failing else []
    if not failing or not _is_numerical(failing[0]):
        return [_sentence(claims) for claims in declared or _declared_pairs(evidence, call, until)]
    evidence = replace(evidence, failing=[judgement for judgement in evidence.failing if _is_numerical(judgement)])
    declared = declared or [(claim,) for claim in _meanings(evidence)] or list(_declared_pairs(evidence, call, until))[:1]
    found = declared + [(claim,) for claim in _pitfalls(evidence, EVERY)]
    if not found:
        found = next(filter(None, _second_best(evidence, call, trigger, until)), [])
    return [_sentence(claims) for claims in found]


def _second_best(evidence: Evidence, call: Call, trigger: Trigger | None, until: float) -> Iterator[list[tuple[Claim, ...]]]:
    """Weaker and weaker explanations, where no single one fits everywhere."""
    inside = evidence
    if trigger is not None and trigger.atoms:
        # A known mistake of one of several paths: what passed on the others does not contradict it.
        inside = replace(evidence, passing=[one for one in evidence.passing if trigger.holds(one.case, evidence.meaning)])
    yield [(Claim(f"{claim.text}{THERE}"),) for claim in _pitfalls(inside, EVERY)]
    yield list(islice(_pairs(evidence, call, until), 1))
    yield [(claim,) for claim in _pitfalls(evidence, NEARLY_ALL)]
    yield [(Claim(f"{claim.text}{THERE}"),) for claim in _pitfalls(inside, NEARLY_ALL)]
    yield [(claim,) for claim in _pitfalls(evidence, SHARE)]
    if trigger is None or not _is_sharp(trigger):
        yield [(claim,) for claim in _precisions(evidence)]


def _is_sharp(trigger: Trigger) -> bool:
    sizes = bool(trigger.atoms) and not any(atom.of_values for atom in trigger.atoms)
    return sizes and trigger.failed >= SHARP * (trigger.failed + trigger.passed)


def _sentence(claims: Sequence[Claim]) -> str:
    options = " ".join(claim.options for claim in claims if claim.options)
    declare = f"; declare {'them' if ' --' in options else 'it'} if that is meant ({options})" if options else ""
    return TOGETHER.join(claim.text for claim in claims) + declare


def pitfalls_named(text: str) -> list[str]:
    """What may be the names of pitfalls in an explanation."""
    return text.removesuffix(THERE).split(TOGETHER)


def _is_numerical(judgement: Judgement) -> bool:
    return judgement.finding is not None and judgement.finding.kind in NUMERICAL


# Another way of calling.


def _ways_of_calling(implementation: Implementation) -> Iterator[tuple[Claim, Implementation]]:
    method = get_method(implementation.method)
    for name, values in conventions_of(method).items():
        if name in CALLING_CONVENTIONS and "mask" in implementation.options:
            for value in values:
                if value != implementation.conventions.get(name, values[0]):
                    yield _followed(name, value), implementation.declaring(conventions={name: value})
    own = method.signature.required[0].dims
    declared = tuple((implementation.layout or " ".join(own)).split())
    *outer, width = own
    for order in (*permutations(outer), (*outer[:-1], width, outer[-1])):
        axes = order if width in order else (*order, width)
        if width in WIDTH_LETTERS and axes != declared:
            layout = " ".join(axes)
            yield Claim(f"agrees when called with layout '{layout}'", f"--layout '{layout}'"), implementation.declaring(layout=layout)


def _followed(name: str, value: str) -> Claim:
    return Claim(f"follows convention {name}={value}", f"--convention {name}={value}")


def _calling(evidence: Evidence, call: Call) -> Iterator[Claim]:
    failing = sorted(evidence.failing, key=_telling)[:TRIED]
    for claim, variant in _ways_of_calling(evidence.implementation):
        # Where two axes have one size, another order of them may pass for the right one.
        if variant.layout != evidence.implementation.layout and sum(_tells_axes_apart(judgement.case) for judgement in failing) < ENOUGH:
            continue
        if all(call(variant, judgement.case).finding is None for judgement in [*failing, *evidence.passing[:TRIED]]):
            yield claim


def _outer_sizes(case: Case) -> list[int]:
    return [case.dims[axis] for axis in case.specification.signature.required[0].dims[:-1]]


def _tells_axes_apart(case: Case) -> bool:
    sizes = _outer_sizes(case)
    return len(set(sizes)) == len(sizes) and 0 not in sizes


def _telling(judgement: Judgement) -> tuple[bool, bool]:
    """Sorts the most telling cases first: those with a mask, and with axes of different sizes."""
    return "mask" not in judgement.case.arrays, not _tells_axes_apart(judgement.case)


def _glanced_at(evidence: Evidence) -> list[Judgement]:
    """A few failing cases that tell axes apart, with a mask and without."""
    failing = sorted(evidence.failing, key=_telling)
    return [*failing[: GLANCE // 2], *sorted(failing, key=lambda judgement: "mask" in judgement.case.arrays)[: GLANCE // 2]]


def _called(evidence: Evidence, variant: Implementation, call: Call) -> Evidence | None:
    """What the implementation does when it is called otherwise; None where that explains too little."""
    if all(call(variant, judgement.case).finding is not None for judgement in _glanced_at(evidence)):
        return None
    judged = [call(variant, judgement.case) for judgement in evidence.failing[: FAILING // 2]]
    passing = [call(variant, judgement.case) for judgement in evidence.passing[: PASSING // 2]]
    if any(judgement.finding is not None for judgement in passing):
        return None
    return _sorted(Evidence(variant, {**variant.meaning}, evidence.contract, [], []), [*judged, *passing])


def _sorted(evidence: Evidence, judgements: Iterable[Judgement]) -> Evidence | None:
    """Evidence with cases as they fail and pass; None where none fails, or one in another way than by its numbers."""
    failing = [judgement for judgement in judgements if judgement.finding is not None]
    passing = [judgement for judgement in judgements if judgement.finding is None]
    if not failing or not all(judgement.finding is not None and judgement.finding.kind in MISCALLED for judgement in failing):
        return None
    return replace(evidence, failing=sorted(failing, key=lambda judgement: judgement.case.size), passing=passing)


# Another meaning.


def _other_meanings(evidence: Evidence) -> Iterator[tuple[Claim, dict[str, str]]]:
    for name, values in get_method(evidence.implementation.method).conventions.items():
        for value in values:
            if value != evidence.meaning.get(name, values[0]):
                yield _followed(name, value), {**evidence.meaning, name: value}


def _meanings(evidence: Evidence) -> Iterator[Claim]:
    for claim, meaning in _other_meanings(evidence):
        other = replace(evidence, meaning=meaning)
        if all(_agrees(other, judgement) for judgement in [*evidence.failing, *evidence.passing]):
            yield claim


def _wanted(evidence: Evidence, judgement: Judgement) -> tuple[Expected, ...]:
    case = judgement.case
    bounds = budget(case.specification, evidence.arguments(case), evidence.contract)
    return tuple(expected(bound, got.dtype.name) for got, bound in zip(judgement.outputs, bounds, strict=True))


def _agrees(evidence: Evidence, judgement: Judgement) -> bool:
    wanted = _wanted(evidence, judgement)
    return all(bool(compare(got, want)[1].all()) for got, want in zip(judgement.outputs, wanted, strict=True))


def _rejudged(evidence: Evidence, meaning: dict[str, str]) -> Evidence | None:
    """The same outputs judged by another meaning; None where that explains too little."""
    other = replace(evidence, meaning=meaning, _lifted={})
    if not any(_agrees(other, judgement) for judgement in evidence.failing[:GLANCE]):
        return None
    if not all(_agrees(other, judgement) for judgement in evidence.passing):
        return None
    judged = [replace(judgement, wanted=_wanted(other, judgement)) for judgement in evidence.failing]
    return _sorted(other, [replace(one, finding=None) if _agrees(other, one) else one for one in judged] + evidence.passing)


# A mistake.


def _tried(evidence: Evidence) -> list[Suspect]:
    """Mistakes in all their variants, with the tiles of the case where the implementation takes any."""
    known = [replace(suspect, pitfall=always(suspect.pitfall)) for suspect in suspects(evidence.implementation.method)]
    tiled = dict.fromkeys(suspect.pitfall for suspect in known if suspect.tile is not None)
    own = [Suspect(pitfall) for pitfall in tiled] if evidence.implementation.tunables else []
    return [*own, *known, *(Suspect(pitfall, tile) for pitfall in tiled for tile in MORE_TILES)]


def _pitfalls(evidence: Evidence, share: float) -> list[Claim]:
    named: dict[str, None] = {}
    for suspect in _tried(evidence):
        if suspect.pitfall.name not in named and _reproduces(suspect, evidence, share):
            named[suspect.pitfall.name] = None
    return [Claim(name) for name in named]


def _reproduces(suspect: Suspect, evidence: Evidence, share: float) -> bool:
    if not _as_wrong(suspect, evidence, evidence.failing[0]):
        return False
    if sum(not _as_wrong(suspect, evidence, judgement) for judgement in evidence.failing) > (1 - share) * len(evidence.failing):
        return False
    return not any(_contradicts(suspect, evidence, judgement) for judgement in evidence.passing)


def _as_wrong(suspect: Suspect, evidence: Evidence, judgement: Judgement) -> bool:
    """Whether a mistake is wrong on a case that failed, and in the same way."""
    outputs = evidence.run(suspect, judgement)
    if outputs is None or not _alike(judgement, outputs):
        return False
    pairs = list(zip(judgement.outputs, outputs, judgement.wanted, strict=False))
    if all(compare(other, want)[1].all() for _, other, want in pairs):
        return False
    # What is alike because the budget is wide explains nothing: nearly all of the error must be gone.
    before = max(float(compare(got, want)[0].max(initial=0.0)) for got, _, want in pairs)
    after = max(float(compare(got, _shifted(want, other))[0].max(initial=0.0)) for got, other, want in pairs)
    return after <= max(0.5, before / 4) or before == inf


def _contradicts(suspect: Suspect, evidence: Evidence, judgement: Judgement) -> bool:
    """Whether a mistake would have shown on a case that passed."""
    outputs = evidence.run(suspect, judgement)
    return outputs is not None and not _alike(judgement, outputs)


def _shifted(want: Expected, value: np.ndarray) -> Expected:
    return Expected(value.astype(want.value.dtype), want.budget)


def _alike(judgement: Judgement, outputs: tuple[np.ndarray, ...]) -> bool:
    """Whether two computations of the same wrong meaning agree: each may err by the budget, which the mistake may magnify.

    Where numbers left the range of the format in both, what comes out depends on the order of operations: there it is
    enough that both are wrong.
    """
    for got, other, want in zip(judgement.outputs, outputs, judgement.wanted, strict=False):
        wrong = other.astype(want.value.dtype)
        with np.errstate(all="ignore"):
            magnified = np.nan_to_num(np.abs(wrong) / np.abs(want.value), nan=1.0, posinf=1.0)
            largest = np.nanmax(np.abs(want.value), initial=0.0, where=np.isfinite(want.value))
            elsewhere = want.budget.max(initial=0.0, where=np.isfinite(want.budget)) * (np.abs(wrong) / largest if largest else 1.0)
            allowed = 2 * np.maximum(want.budget * np.maximum(magnified, 1.0), np.nan_to_num(elsewhere, nan=0.0, posinf=0.0))
        overflowed = ~np.isfinite(got.astype(np.float64)) & ~compare(other, want)[1] & (~np.isfinite(wrong)).any()
        if not (compare(got, Expected(wrong, allowed))[1] | overflowed).all():
            return False
    return True


# Two of them, and precision.


def _declared_pairs(evidence: Evidence, call: Call, until: float) -> Iterator[tuple[Claim, ...]]:
    """Two conventions that may be declared, a way of calling first."""
    for claim, variant in _ways_of_calling(evidence.implementation):
        if time.process_time() < until:
            yield from ((claim, second) for second in _meanings_when_called(evidence, variant, call))
    for claim, called in _all_called(evidence, call, until):
        yield from ((claim, second) for second in _calling(called, call))
    if all(_is_numerical(judgement) for judgement in evidence.failing):
        for claim, rejudged in _all_rejudged(evidence, until):
            yield from ((claim, second) for second in _meanings(rejudged))


def _meanings_when_called(evidence: Evidence, variant: Implementation, call: Call) -> Iterator[Claim]:
    """Meanings that fit when the implementation is called otherwise; either may show in most cases, so both are tried at once."""
    cases = [judgement.case for judgement in (*_glanced_at(evidence), *evidence.failing[: FAILING // 2], *evidence.passing[: PASSING // 2])]
    glance = [call(variant, case) for case in cases[:GLANCE]]
    if not all(judgement.outputs for judgement in glance):
        return
    called = Evidence(variant, variant.meaning, evidence.contract, [], [])
    for claim, meaning in _other_meanings(called):
        other = replace(called, meaning=meaning)
        if all(_agrees(other, judgement) for judgement in glance):
            judged = [call(variant, case) for case in cases[GLANCE:]]
            if all(judgement.outputs and _agrees(other, judgement) for judgement in judged):
                yield claim


def _pairs(evidence: Evidence, call: Call, until: float) -> Iterator[tuple[Claim, ...]]:
    """A convention and a mistake, or two mistakes."""
    for claim, other in (*_all_called(evidence, call, until), *_all_rejudged(evidence, until)):
        if all(_is_numerical(judgement) for judgement in other.failing):
            yield from ((claim, second) for second in _pitfalls(other, EVERY))
    yield from _two_pitfalls(evidence, until)


def _all_called(evidence: Evidence, call: Call, until: float) -> Iterator[tuple[Claim, Evidence]]:
    for claim, variant in _ways_of_calling(evidence.implementation):
        if time.process_time() < until and (called := _called(evidence, variant, call)) is not None:
            yield claim, called


def _all_rejudged(evidence: Evidence, until: float) -> Iterator[tuple[Claim, Evidence]]:
    for claim, meaning in _other_meanings(evidence):
        if time.process_time() < until and (rejudged := _rejudged(evidence, meaning)) is not None:
            yield claim, rejudged


def _two_pitfalls(evidence: Evidence, until: float) -> Iterator[tuple[Claim, ...]]:
    possible = [
        suspect for suspect in _tried(evidence) if not any(_contradicts(suspect, evidence, judgement) for judgement in evidence.passing)
    ]
    # The shrunk case needs one mistake only, or it were smaller still.
    firsts = [suspect for suspect in possible if _as_wrong(suspect, evidence, evidence.failing[0])]
    missing = [[judgement for judgement in evidence.failing if not _as_wrong(first, evidence, judgement)] for first in firsts]
    for first, missed in sorted(zip(firsts, missing, strict=True), key=lambda pair: len(pair[1])):
        for second in possible if len(missed) >= MISSED else ():
            if time.process_time() > until:
                return
            both = together(first.pitfall, second.pitfall)
            if both is None or (None not in (first.tile, second.tile) and first.tile != second.tile):
                continue
            suspect = Suspect(both, first.tile or second.tile)
            if _as_wrong(suspect, evidence, missed[0]) and _reproduces(suspect, evidence, EVERY):
                yield Claim(first.pitfall.name), Claim(second.pitfall.name)


def _precisions(evidence: Evidence) -> Iterator[Claim]:
    """The tightest contract that every case meets, and where the next tighter one fails."""
    dtype, tighter = evidence.failing[0].case.dtype, ""
    for contract in CONTRACTS.values():
        if contract.output.name != dtype:
            continue
        other = replace(evidence, contract=contract)
        worst, judgement = max(((_ratio(other, judgement), judgement) for judgement in evidence.failing), key=lambda pair: pair[0])
        if worst <= 1 and all(_agrees(other, judgement) for judgement in evidence.passing):
            yield Claim(f"precision: meets contract {contract.name}{tighter}", f"--contract {contract.name}")
            return
        tighter = f", but not {contract.name} (error/budget {worst:.3g} on {judgement.case})"


def _ratio(evidence: Evidence, judgement: Judgement) -> float:
    """Largest error over budget."""
    wanted = _wanted(evidence, judgement)
    return max(float(compare(got, want)[0].max(initial=0.0)) for got, want in zip(judgement.outputs, wanted, strict=True))
