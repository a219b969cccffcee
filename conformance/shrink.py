"""Shrinking: from a failing case to a small one that fails in the same way and as clearly.

Works on the case itself, part by part, rather than on the random draws behind it: every step stays a case that a person
can read. A shrunk case keeps the kind of its finding and an error far outside the budget, else a bug would come to look
like rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from conformance.cases.case import ArrayRecipe, Case
from conformance.cases.shapes import WIDTH_LETTERS
from conformance.cases.values import CODED_RECIPES, MASK_RECIPES
from conformance.judge import Finding
from oracle.conditions import holds

__all__ = ["keeps", "shrink"]

# A ratio this far above 1 cannot be taken for rounding, so nothing is gained by insisting on a larger one.
CLEAR = 1000.0


# The usual two calls on a case, and one more that shows what they leave.
FEWEST_CALLS = 3


def keeps(original: Finding, candidate: Finding | None) -> bool:
    """Whether a finding is the same kind as the original, with a ratio of the same order (or clear in itself)."""
    if candidate is None or candidate.kind != original.kind:
        return False
    return candidate.ratio >= min(max(original.ratio / 10, min(original.ratio, 10.0)), CLEAR)


def shrink(
    finding: Finding, examine: Callable[[Case], Finding | None], valid: Callable[[Case], bool], steps: int, seconds: float
) -> Finding:
    """Simplify the case of a finding until no single step keeps it, or the limits are reached.

    Args:
        finding: to start from.
        examine: the finding of a case, if any.
        valid: whether a case may be tried (the implementation's restrictions).
        steps: cases to try at most; what makes the result the same on a slow machine and on a fast one.
        seconds: limit for cases that are slow in themselves.
    """
    best, until, tried = finding, time.monotonic() + seconds, {str(finding.case)}
    progress = True
    while progress:
        progress = False
        for candidate in simpler(best.case):
            if len(tried) > steps or time.monotonic() > until:
                return best
            if str(candidate) in tried or not all(consistent(one) and valid(one) for one in (candidate, *candidate.earlier)):
                continue
            tried.add(str(candidate))
            found = examine(candidate)
            if found is not None and found.case == candidate and keeps(finding, found):
                best, progress = found, True
                break
    return best


def consistent(case: Case) -> bool:
    """Whether the dimensions satisfy the method's conditions."""
    return case.dims.get("g", 1) > 0 and all(holds(condition, case.dims) for condition in case.specification.where)


def simpler(case: Case) -> Iterator[Case]:
    """Cases one step simpler, the boldest first."""
    if case.warm:
        yield replace(case, warm=False)
    if case.calls > FEWEST_CALLS:
        yield replace(case, calls=FEWEST_CALLS)
    for index in range(len(case.earlier)):
        yield replace(case, earlier=case.earlier[:index] + case.earlier[index + 1 :])
    for smaller in _smaller(case) if case.earlier else ():
        yield replace(smaller, earlier=tuple(replace(earlier, dims=smaller.dims) for earlier in case.earlier))
    yield from _without_options(case)
    yield from _smaller(case)
    yield from _plainer_arrays(case)
    yield from _plainer_options(case)


def _without_options(case: Case) -> Iterator[Case]:
    optional = {spec.name for spec in case.specification.signature.optional}
    for name in case.arrays:
        if name in optional:
            yield replace(case, arrays=_without(case.arrays, name))
    for name in case.options:
        yield replace(case, options=_without(case.options, name))


def _smaller(case: Case) -> Iterator[Case]:
    dims = dict(case.dims)
    if "g" in dims and dims.get("h") != dims["g"]:
        yield replace(case, dims={**dims, "h": dims["g"]})
    coded = any(recipe.recipe in CODED_RECIPES for recipe in case.arrays.values())
    for name, size in dims.items():
        if coded and name in WIDTH_LETTERS:
            continue  # the width holds the code
        for candidate in _lower(size, most_likely=1):
            together = {"h": candidate * (dims["h"] // dims["g"])} if name == "g" and "h" in dims else {}
            yield replace(case, dims={**dims, name: candidate, **together})
    lengths = [name for name in ("l", "s") if name in dims]
    if len(lengths) == 2 and dims["l"] == dims["s"]:
        for candidate in _lower(dims["l"], most_likely=2):
            yield replace(case, dims={**dims, "l": candidate, "s": candidate})
    for name, value in case.tunables.items():
        for candidate in _lower(value, most_likely=1):
            if candidate >= 1:
                yield replace(case, tunables={**case.tunables, name: candidate})


def _lower(size: int, most_likely: int) -> Iterator[int]:
    """Smaller sizes: a likely minimum, then nearer and nearer ones by halving the step, then one less."""
    tried = set()
    for candidate in (most_likely, 2, 3, 4, size // 2, size - size // 4, size - size // 8, size - 2, size - 1):
        if 0 < candidate < size and candidate not in tried:
            tried.add(candidate)
            yield candidate


def _plainer_arrays(case: Case) -> Iterator[Case]:
    for name, recipe in case.arrays.items():
        for plainer in _plainer(recipe):
            yield replace(case, arrays={**case.arrays, name: plainer})


def _plainer(recipe: ArrayRecipe) -> Iterator[ArrayRecipe]:
    if recipe.layout != "contiguous":
        yield replace(recipe, layout="contiguous")
    if recipe.garbage:
        yield replace(recipe, garbage="")
    if recipe.recipe in CODED_RECIPES:
        return  # a code tells more than plain numbers
    if recipe.gain != 1:
        yield replace(recipe, gain=1.0)
    plain = ("full", "padding_right") if _is_mask(recipe) else ("normal", "zeros")
    if recipe.recipe not in plain:
        yield from (replace(recipe, recipe=name) for name in plain)
    if recipe.axes is not None and len(recipe.axes) > 1:
        yield replace(recipe, axes=recipe.axes[1:])
    if recipe.seed:
        yield replace(recipe, seed=0)


def _is_mask(recipe: ArrayRecipe) -> bool:
    return recipe.recipe in MASK_RECIPES


def _plainer_options(case: Case) -> Iterator[Case]:
    for name, value in case.options.items():
        if isinstance(value, tuple):
            for index, side in enumerate(value):
                for plainer in (None, 0, 1):
                    if side != plainer and (side is None) <= (plainer is None):
                        yield replace(case, options={**case.options, name: (*value[:index], plainer, *value[index + 1 :])})


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}
