"""Explanations: which known mistake, convention or precision makes an implementation return what it did.

An explanation must reproduce the outputs on every failing case that it applies to, and agree with the right answer on
the passing ones as the implementation does. It is named, never guessed into a pass.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from conformance.adequacy import Suspect, suspects
from conformance.diagnosis.declaring import Call, all_called, all_rejudged, called_otherwise, meant_otherwise, two_declared
from conformance.diagnosis.evidence import MISCALLED, NUMERICAL, Claim, Evidence
from conformance.diagnosis.trigger import Trigger
from conformance.judge import Judgement
from conformance.pitfalls.combined import always, together
from oracle.readings.contract import CONTRACTS

__all__ = ["explain", "pitfalls_named"]

# Cases that an explanation is held against, and what one mistake may cost on them: elements, of which a token of a recurrence,
# which goes from token to token in Python, is worth many.
FAILING, PASSING = 60, 40
WORK, TOKEN = 2**22, 2**10

# An explanation reproduces the shrunk case and every failing one. Where none does, because a computation that overflows
# comes out differently or because there is another mistake, one is named that reproduces a smaller share.
EVERY, NEARLY_ALL, SHARE = 1.0, 0.9, 0.5

# Failing cases that one mistake leaves to another: a single one may be an accident of rounding.
MISSED = 2

# Rounding has no sharp edge: a condition on sizes and options that nearly all cases inside of it fail on is another matter.
SHARP = 0.95

# Sizes of tiles that kernels use, besides those that a certificate rules out.
MORE_TILES = (8, 48, 80, 96, 192, 256)

# Added to a mistake that explains what happens where the trigger holds, and would have shown elsewhere as well; between two.
THERE, TOGETHER = ", only where the trigger holds", " together with "


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
    if not failing:
        return []
    shrunk = failing[0].finding
    evidence = replace(evidence, failing=_affordable(failing)[:FAILING], passing=_affordable(evidence.passing)[:PASSING])
    declared: list[tuple[Claim, ...]] = [(claim,) for claim in called_otherwise(evidence, call)]
    if shrunk is not None and shrunk.kind not in NUMERICAL:
        return [_sentence(claims) for claims in declared or two_declared(evidence, call, until)]
    numbers = [judgement for judgement in evidence.failing if judgement.finding is not None and judgement.finding.kind in NUMERICAL]
    evidence = replace(evidence, failing=numbers)
    declared = declared or [(claim,) for claim in meant_otherwise(evidence)] or list(islice(two_declared(evidence, call, until), 1))
    found = declared + [(claim,) for claim in _mistakes(evidence, EVERY)]
    return [_sentence(claims) for claims in found or next(filter(None, _second_best(evidence, call, trigger, until)), [])]


def _affordable(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The first, and of the others those that the work allowed is enough for, in their order."""
    kept, left = list(judgements[:1]), WORK
    for judgement in judgements[1:]:
        work = judgement.case.size + TOKEN * judgement.case.dims.get("l", 0)
        if work <= left:
            kept.append(judgement)
            left -= work
    return kept


def _second_best(evidence: Evidence, call: Call, trigger: Trigger | None, until: float) -> Iterator[list[tuple[Claim, ...]]]:
    """Weaker and weaker explanations, where no single one fits everywhere."""
    inside = evidence
    if trigger is not None and trigger.atoms:
        # A known mistake of one of several paths: what passed on the others does not contradict it.
        inside = replace(evidence, passing=[one for one in evidence.passing if trigger.holds(one.case, evidence.meaning)])
    yield [(Claim(f"{claim.text}{THERE}"),) for claim in _mistakes(inside, EVERY)]
    yield list(islice(_pairs(evidence, call, until), 1))
    yield [(claim,) for claim in _mistakes(evidence, NEARLY_ALL)]
    yield [(Claim(f"{claim.text}{THERE}"),) for claim in _mistakes(inside, NEARLY_ALL)]
    yield [(claim,) for claim in _mistakes(evidence, SHARE)]
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
    return text.partition("; ")[0].removesuffix(THERE).split(TOGETHER)


def _tried(evidence: Evidence) -> list[Suspect]:
    """Mistakes in all their variants, with the tiles of the case where the implementation takes any."""
    known = [replace(suspect, pitfall=always(suspect.pitfall)) for suspect in suspects(evidence.implementation.method)]
    tiled = dict.fromkeys(suspect.pitfall for suspect in known if suspect.tile is not None)
    own = [Suspect(pitfall) for pitfall in tiled] if evidence.implementation.tunables else []
    return [*own, *known, *(Suspect(pitfall, tile) for pitfall in tiled for tile in MORE_TILES)]


def _mistakes(evidence: Evidence, share: float) -> list[Claim]:
    """Known mistakes that reproduce this share of the failing cases."""
    named: dict[str, None] = {}
    for suspect in _tried(evidence):
        if suspect.pitfall.name not in named and evidence.reproduces(suspect, share):
            named[suspect.pitfall.name] = None
    return [Claim(name) for name in named]


def _pairs(evidence: Evidence, call: Call, until: float) -> Iterator[tuple[Claim, Claim]]:
    """A convention and a mistake, or two mistakes."""
    for claim, other in (*all_called(evidence, call, until), *all_rejudged(evidence, until)):
        if other.numerical:
            yield from ((claim, second) for second in _mistakes(other, EVERY))
    possible = [suspect for suspect in _tried(evidence) if not evidence.contradicted(suspect)]
    # The shrunk case needs one mistake only, or it were smaller still.
    firsts = [suspect for suspect in possible if evidence.as_wrong(suspect, evidence.failing[0])]
    missing = [[judgement for judgement in evidence.failing if not evidence.as_wrong(first, judgement)] for first in firsts]
    for first, missed in sorted(zip(firsts, missing, strict=True), key=lambda pair: len(pair[1])):
        for second in possible if len(missed) >= MISSED else ():
            if time.process_time() > until:
                return
            both = together(first.pitfall, second.pitfall)
            if both is None or (None not in (first.tile, second.tile) and first.tile != second.tile):
                continue
            suspect = Suspect(both, first.tile or second.tile)
            if evidence.as_wrong(suspect, missed[0]) and evidence.reproduces(suspect, EVERY):
                yield Claim(first.pitfall.name), Claim(second.pitfall.name)


def _precisions(evidence: Evidence) -> Iterator[Claim]:
    """The tightest contract that every case meets, and where the next tighter one fails."""
    dtype, tighter = evidence.failing[0].case.dtype, ""
    for contract in CONTRACTS.values():
        if contract.output.name != dtype:
            continue
        other = replace(evidence, contract=contract)
        worst, judgement = max(((other.ratio(judgement), judgement) for judgement in evidence.failing), key=lambda pair: pair[0])
        if worst <= 1 and all(map(other.agrees, evidence.passing)):
            yield Claim(f"precision: meets contract {contract.name}{tighter}", f"--contract {contract.name}")
            return
        tighter = f", but not {contract.name} (error/budget {worst:.3g} on {judgement.case})"
