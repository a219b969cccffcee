"""Adequacy: which known mistakes the executed cases would have exposed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.cases.case import Case
from conformance.cases.layouts import broadcast_axis
from conformance.judge import Judgement, compare, settled
from conformance.pitfalls import Pitfall, Setting, pitfalls_for
from conformance.pitfalls.dense import Steps
from conformance.registry import Implementation
from oracle import get_method
from oracle.catalogue import PLAIN_DTYPES
from oracle.conditions import condition_names
from oracle.formats import FORMATS
from oracle.readings import EXACT_KINDS, Expected
from oracle.readings.contract import PrecisionContract

__all__ = ["Adequacy", "Suspect", "lift", "run_suspect", "suspects"]

# Pitfalls run on cases up to this size: every mistake shows on some case that is not huge.
LARGEST_CASE = 400_000

# After so many cases without an occasion, a mistake that speaks of an option that the implementation lacks is tried on
# every so manieth only. Others are tried on all: few cases bring them out, and one that is missed counts as no occasion.
OCCASIONS, EVERY = 60, 8

# Cases that wait until it is asked what they rule out: a hunt that finds something needs not know. They are so few, and
# together no larger than the largest of them may be, that time limits hold.
MOST_WAITING = 64

# What conditions of pitfalls call parts of an option, besides "mask_h" and the like.
OF_OPTIONS = {"left": "window", "right": "window", "documents": "mask"}

# The tunables that are the size of a tile of keys, where an implementation takes one.
KEY_TILES = ("block_k", "chunk_size", "block_size")


@dataclass(frozen=True)
class Suspect:
    """A pitfall, with the tile size at which it is tried where that matters: a number, or the name of the case's tunable."""

    pitfall: Pitfall
    tile: int | str | None = None

    @property
    def name(self) -> str:
        """As shown: the tile size in parentheses, ``block_k`` for the implementation's own."""
        return self.pitfall.name if self.tile is None else f"{self.pitfall.name} (tile {self.tile})"


def suspects(method: str, tunables: Collection[str] = ()) -> tuple[Suspect, ...]:
    """Every pitfall of a method in all its variants; one of tiles also at the implementation's own, where these are a tunable."""
    own: tuple[int | str, ...] = tuple(tile for tile in KEY_TILES if tile in tunables)
    return tuple(
        Suspect(pitfall, tile) for pitfall in pitfalls_for(method) for tile in ((*own, *pitfall.variants) if pitfall.variants else (None,))
    )


def lift(
    case: Case, arguments: Mapping[str, Any], order: str | None = None, contract: PrecisionContract | None = None
) -> tuple[dict[str, Any], Setting]:
    """The arguments in the dtype in which pitfalls compute, and how the implementation computes.

    Args:
        case: what was called.
        arguments: by name, contiguous, and the conventions.
        order: of the axes, if the implementation declares one; what lies where in memory is then not told.
        contract: whose roundings are no mistake; None for any.
    """
    working = np.dtype(np.float64 if case.dtype == "float64" else np.float32)
    exact = {spec.name for spec in case.specification.signature.inputs if spec.kind in PLAIN_DTYPES}
    lifted = {
        name: value.astype(working) if isinstance(value, np.ndarray) and name not in exact else value
        for name, value in arguments.items()
    }  # fmt: skip
    layouts = {
        name: (recipe.layout, broadcast_axis(recipe.layout, case.shape(name), case.axes(name)))
        for name, recipe in case.arrays.items()
        if recipe.layout != "contiguous" and order is None
    }
    return lifted, Setting(case.dtype, working, case.tunables, layouts, contract)


def run_suspect(suspect: Suspect, lifted: Mapping[str, Any], setting: Setting) -> tuple[np.ndarray, ...] | None:
    """What the mistake would have returned for a case, rounded to the output's dtype; None where it does not apply.

    Args:
        suspect: the mistake.
        lifted, setting: from `lift`.
    """
    setting = _at_tile(suspect, setting)
    with np.errstate(all="ignore"):
        outputs = suspect.pitfall.run(lifted, setting)
        if outputs is None:
            return None
        form, specs = FORMATS[setting.dtype].dtype, get_method(suspect.pitfall.methods[0]).signature.outputs
        # Integers are exact, and codes are given as what they stand for.
        kept = [spec.kind == "code" or one.dtype.kind in EXACT_KINDS for spec, one in zip(specs, outputs, strict=False)]
        return tuple(one if exact else one.astype(form) for exact, one in zip(kept, outputs, strict=False))


def applies(suspect: Suspect, lifted: Mapping[str, Any], setting: Setting) -> bool:
    """Whether a mistake applies to a case: `run_suspect` returns something; its arguments."""
    if suspect.pitfall.shows is None:
        return run_suspect(suspect, lifted, setting) is not None
    return suspect.pitfall.shows(lifted, _at_tile(suspect, setting))


def _at_tile(suspect: Suspect, setting: Setting) -> Setting:
    if not isinstance(suspect.tile, int):
        return setting
    tiles = dict.fromkeys(("block_q", *KEY_TILES), suspect.tile)
    return replace(setting, tunables={**setting.tunables, **tiles})


def leaves_budget(outputs: tuple[np.ndarray, ...] | None, wanted: tuple[Expected, ...]) -> bool:
    """Whether what a mistake returned is not what is wanted; a mistake that does not apply returns None."""
    if outputs is None:
        return False
    given = settled(outputs, wanted[: len(outputs)])
    return any(not compare(got, want)[1].all() for got, want in zip(outputs, given, strict=False))


def _speaks_of_others(pitfall: Pitfall, implementation: Implementation) -> bool:
    """Whether the condition of a pitfall names an option that the implementation does not take."""
    steps = Steps.declared.get((implementation.method, pitfall.name))
    if steps is None:
        return False
    others = set(get_method(implementation.method).keywords) - set(implementation.options)
    named = {OF_OPTIONS.get(name, name.partition("_")[0]) for name in condition_names(steps.needs)}
    return bool(named & others)


class Adequacy:
    """Keeps, for one hunt, the mistakes that are not ruled out yet and runs them on the cases that passed."""

    def __init__(self, implementation: Implementation, contract: PrecisionContract | None = None) -> None:
        self.implementation, self._contract = implementation, contract
        self._open = list(suspects(implementation.method, implementation.tunables))
        self._unlikely = {suspect.name for suspect in self._open if _speaks_of_others(suspect.pitfall, implementation)}
        self._outputs = [spec.name for spec in get_method(implementation.method).signature.outputs]
        self._met: set[str] = set()
        self._learned = 0
        self._ruled_out: dict[str, str] = {}
        self._waiting: list[tuple[Case, tuple[Expected, ...]]] = []

    @property
    def ruled_out(self) -> Mapping[str, str]:
        """Mistakes that some executed case exposed, with the first such case."""
        self.settle()
        return self._ruled_out

    @property
    def left(self) -> list[str]:
        """Mistakes that applied to some executed case but were not exposed by any."""
        self.settle()
        return [suspect.name for suspect in self._open if suspect.name in self._met]

    def look_ahead(self, cases: Iterable[Case]) -> None:
        """Count as met what would apply to cases that were not executed.

        A hunt of a few cases leaves most mistakes without an occasion; that does not make them inapplicable.
        """
        self.settle()
        unmet = [suspect for suspect in self._open if suspect.name not in self._met and self._shown(suspect)]
        for index, case in enumerate(cases):
            tried = unmet if index < OCCASIONS or index % EVERY == 0 else [one for one in unmet if one.name not in self._unlikely]
            if not tried:
                continue
            lifted, setting = self._lift(case)
            met = {suspect.name for suspect in tried if applies(suspect, lifted, setting)}
            self._met |= met
            unmet = [suspect for suspect in unmet if suspect.name not in met]

    def exposes(self, case: Case, wanted: tuple[Expected, ...]) -> bool:
        """Whether a case, to be executed or not, would rule out something that is left."""
        self.settle()
        if case.size > LARGEST_CASE:
            return False
        lifted, setting = self._lift(case)
        left = (suspect for suspect in self._open if suspect.name in self._met)
        return any(leaves_budget(run_suspect(suspect, lifted, setting), wanted) for suspect in left)

    def learn(self, judgement: Judgement) -> None:
        """Have what is left run on a case that passed, before it is next asked what is."""
        case = judgement.case
        if not self._open or case.size > LARGEST_CASE or not judgement.wanted:
            return
        self._waiting.append((case, judgement.wanted))
        if len(self._waiting) == MOST_WAITING or sum(waiting.size for waiting, _ in self._waiting) > LARGEST_CASE:
            self.settle()

    def settle(self) -> None:
        """Run what is left on the cases that passed since."""
        waiting, self._waiting = self._waiting, []
        for case, wanted in waiting:
            self._settle(case, wanted)

    def _settle(self, case: Case, wanted: tuple[Expected, ...]) -> None:
        self._learned += 1
        self._outputs = self._outputs[: len(wanted)]
        lifted, setting = self._lift(case)
        remaining = []
        for suspect in self._open:
            rare = self._learned > OCCASIONS and suspect.name in self._unlikely - self._met
            outputs = None if rare and self._learned % EVERY else run_suspect(suspect, lifted, setting)
            if outputs is not None and self._shown(suspect):
                self._met.add(suspect.name)
            if leaves_budget(outputs, wanted):
                self._ruled_out[suspect.name] = str(case)
            else:
                remaining.append(suspect)
        self._open = remaining

    def _shown(self, suspect: Suspect) -> bool:
        """Whether the implementation returns the output in which a mistake shows; one that shows by accident is ruled out all the same."""
        return suspect.pitfall.output in ("", *self._outputs)

    def _lift(self, case: Case) -> tuple[dict[str, Any], Setting]:
        meaning = self.implementation.meaning
        return lift(case, {**case.arguments(meaning), **meaning}, self.implementation.layout, self._contract)
