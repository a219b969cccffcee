"""Mistakes put together: two at once, and one without its own judgement of which calls bring it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from conformance.pitfalls import Pitfall, Setting
from conformance.pitfalls.dense import Steps
from conformance.pitfalls.merging import Merge
from oracle import METHODS

__all__ = ["always", "together"]

# What tells of a mistake, rather than makes it.
TOLD = {"name", "explanation", "citation", "needs", "occasional", "methods", "variants", "facts", "applies"}


@cache
def always(pitfall: Pitfall) -> Pitfall:
    """A pitfall that returns what it computes even where that is hardly wrong; see `Steps.occasional`."""
    steps = Steps.declared.get((pitfall.methods[0], pitfall.name))
    if steps is None or not steps.occasional:
        return pitfall
    unasked: type[Steps] = type(steps.__name__, (steps,), {"occasional": False})
    return replace(pitfall, run=partial(unasked.run, len(METHODS[pitfall.methods[0]].signature.outputs)))


@cache
def together(one: Pitfall, other: Pitfall) -> Pitfall | None:
    """A pitfall that makes two mistakes of a method where both apply, one where one does; None if both override a step."""
    method = one.methods[0]
    first, second = (Steps.declared.get((method, pitfall.name)) for pitfall in (one, other))
    if first is None or second is None or _overridden(first) & _overridden(second):
        return None
    both, count = _combined(first, second), len(METHODS[method].signature.outputs)
    if both is None:
        return None
    makers = {(True, True): both, (True, False): first, (False, True): second}

    def run(arguments: Mapping[str, Any], setting: Setting) -> tuple[np.ndarray, ...] | None:
        with np.errstate(all="ignore"):
            steps = makers.get((first(arguments, setting).applies(), second(arguments, setting).applies()))
            return None if steps is None else steps(arguments, setting).outputs()[:count]

    return Pitfall(f"{one.name} together with {other.name}", (method,), f"{one.explanation} {other.explanation}", one.citation, run)


def _combined(first: type[Steps], second: type[Steps]) -> type[Steps] | None:
    if issubclass(second, Merge):
        first, second = second, first
    try:
        if issubclass(first, Merge) and not issubclass(second, Merge):
            part = type("PartWithMistake", (second, first.part), {})  # the mistake is in each of the parts
            return type("MergeOfMistakes", (first,), {"part": part})
        return type("BothMistakes", (first, second), {})
    except TypeError:  # their bases fit no common order
        return None


def _overridden(steps: type[Steps]) -> set[str]:
    """Names that a mistake defines otherwise than the computation that it is a mistake in."""
    names: set[str] = set()
    for base in steps.__mro__:
        if "outputs" in vars(base):
            break
        names |= {name for name in vars(base) if not name.startswith("__")} - TOLD
    return names
