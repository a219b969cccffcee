"""Two mistakes at once: their steps in one class, where they override different ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from conformance.pitfalls import Pitfall, Setting
from conformance.pitfalls.dense import Steps
from conformance.pitfalls.merging import Merge
from oracle import METHODS

__all__ = ["together"]

# What tells of a mistake, rather than makes it.
TOLD = {"name", "explanation", "citation", "needs", "occasional", "methods", "variants", "facts", "applies"}


@cache
def together(one: Pitfall, other: Pitfall) -> Pitfall | None:
    """A pitfall that makes two mistakes of a method where both apply, one where one does; None if both override a step."""
    method = one.methods[0]
    first, second = (Steps.declared.get((method, pitfall.name)) for pitfall in (one, other))
    if first is None or second is None or _overridden(first) & _overridden(second):
        return None
    both = _combined(first, second)
    if both is None:
        return None

    def run(arguments: Mapping[str, Any], setting: Setting) -> tuple[np.ndarray, ...] | None:
        with np.errstate(all="ignore"):
            applicable = [pitfall for pitfall, steps in ((one, first), (other, second)) if steps(arguments, setting).applies()]
            if len(applicable) < 2:
                return applicable[0].run(arguments, setting) if applicable else None
            return both(arguments, setting).outputs()[:count]

    count = len(METHODS[method].signature.outputs)
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
