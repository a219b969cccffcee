"""A failing case made to show its weights: values of which each is a unit vector, so that the output is what the keys weigh."""

from __future__ import annotations

from dataclasses import replace

from conformance.cases.case import ArrayRecipe, Case

__all__ = ["keys_shown", "weighing"]

# Keys that a picture still shows one by one.
MOST_KEYS = 128


def _keys(case: Case) -> int:
    """How many rows the values have; 0 for a method that has none, one row a key."""
    spec = next((spec for spec in case.specification.signature.required if spec.name == "v"), None)
    if spec is None or spec.dims[:-1] not in (("b", "g", "s"), ("b", "h", "s"), ("b", "h", "l"), ("s", "g")):
        return 0
    return case.dims["s" if "s" in spec.dims else "l"]


def weighing(case: Case) -> Case | None:
    """The case with values that make its output its weights, queries by keys; None where it has too many keys, or no values."""
    keys = _keys(case)
    if not 1 < keys <= MOST_KEYS or case.invariant:
        return None
    width = case.specification.signature.outputs[0].dims[-1]
    values = ArrayRecipe("one_hot")
    made = replace(case, dims={**case.dims, width: keys}, arrays={**case.arrays, "v": values}, warm=False, calls=0, earlier=()).settled()
    return made if made.consistent else None


def keys_shown(case: Case) -> bool:
    """Whether the columns of a case's output are keys."""
    width = case.specification.signature.outputs[0].dims[-1:]
    values = case.arrays.get("v")
    plain = values is not None and (values.recipe, values.seed, values.gain) == ("one_hot", 0, 1)
    return plain and bool(width) and case.dims.get(width[0]) == _keys(case) > 1
