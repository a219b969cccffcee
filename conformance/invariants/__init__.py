"""Invariants: relations between calls of an implementation, and answers in closed form, that hold without an oracle.

An invariant turns a call into related ones and says what the outputs of those (or the arguments alone) tell of its own.
It tolerates the sum of what either side may be off (`bound.error_bounds`), so no tolerance is chosen. A case that names
one, ``invariant=key-permutation``, is judged by it instead of by the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np

from conformance.cases.case import Case
from conformance.errors import UsageError
from conformance.invariants.calls import Call, Outputs
from conformance.registry import Implementation
from oracle.readings.contract import PrecisionContract

__all__ = ["DENSE", "MERGE", "Invariant", "Plan", "Setting", "declare", "get_invariant", "invariants_for"]

DENSE = ("attention", "attention_with_lse")
MERGE = ("merge_attention_states",)


@dataclass(frozen=True)
class Setting:
    """What an invariant may ask beyond the call.

    Attributes:
        implementation: as declared.
        contract: under which it is judged.
        rng: for free choices; the same for cases of the same dimensions, so that a case shrinks step by step.
    """

    implementation: Implementation
    contract: PrecisionContract
    rng: np.random.Generator

    @property
    def meaning(self) -> Mapping[str, str]:
        """Declared conventions."""
        return self.implementation.meaning

    def convention(self, name: str, default: str) -> str:
        """The declared value of a convention."""
        return self.implementation.meaning.get(name, default)


@dataclass(frozen=True)
class Plan:
    """What to call and what it tells.

    Attributes:
        calls: to make besides the call itself.
        predict: from what they returned, the call itself first, to what the call should have returned and how far that
            prediction may be off, inf where nothing is claimed.
    """

    calls: tuple[Call, ...]
    predict: Callable[[Sequence[Outputs]], Outputs]


@dataclass(frozen=True)
class Invariant:
    """A relation that every right implementation keeps.

    Attributes:
        name: short, with hyphens, as in a case's line.
        statement: one sentence, as in a finding.
        catches: the mistakes that violate it.
        citation: a paper or a public report.
        methods: names of the methods that have it.
        plan: for a call; None where the invariant says nothing of it.
        aim: makes a random case one that the invariant speaks of.
    """

    name: str
    statement: str
    catches: str
    citation: str
    methods: tuple[str, ...]
    plan: Callable[[Call, Setting], Plan | None]
    aim: Callable[[Case], Case] = field(default=lambda case: case)


_INVARIANTS: dict[str, Invariant] = {}
_FAMILIES = ("closed_forms", "parts", "transformations")


def declare(*invariants: Invariant) -> None:
    """Add invariants to the catalogue."""
    for invariant in invariants:
        if invariant.name in _INVARIANTS:
            raise ValueError(f"invariant {invariant.name!r} is declared twice")
        _INVARIANTS[invariant.name] = invariant


def invariants_for(method: str) -> tuple[Invariant, ...]:
    """The invariants of a method, in order of declaration."""
    for family in _FAMILIES:
        import_module(f"conformance.invariants.{family}")
    return tuple(invariant for invariant in _INVARIANTS.values() if method in invariant.methods)


def get_invariant(name: str, method: str) -> Invariant:
    """The invariant of that name.

    Raises:
        UsageError: the method has none of that name.
    """
    known = {invariant.name: invariant for invariant in invariants_for(method)}
    if name not in known:
        raise UsageError(f"invariant={name!r}, but should be one of {', '.join(known)} [{method}]")
    return known[name]
