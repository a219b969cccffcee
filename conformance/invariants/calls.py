"""The calls that an invariant compares: a case for dimensions, options and layouts, and the arrays themselves.

A part of a call is named by indices along letters of the signature: {"b": [0]}, or {"g": [1], "h": [2, 3]} for a
key/value head with the query heads that read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.cases.case import ArrayRecipe, Case
from conformance.cases.shapes import KV_HEADS, QUERY_HEADS
from oracle.readings import Expected

__all__ = ["PARTS", "Call", "Outputs", "Part", "embedded", "part_of", "restricted"]

PARTS = "n"  # the letter of partial results that are merged

Part = Mapping[str, np.ndarray]

# What a call returned, each element with a bound on its error.
Outputs = tuple[Expected, ...]


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        case: its dimensions, options, layouts and tunables; the arrays' elements are not those of its recipes.
        arrays: by name.
        may_refuse: whether an exception is no finding, since the arrays hold NaN.
    """

    case: Case
    arrays: Mapping[str, np.ndarray]
    may_refuse: bool = False

    @classmethod
    def of(cls, case: Case, meaning: Mapping[str, str]) -> Call:
        """The call that a case describes."""
        arguments = case.arguments(meaning)
        return cls(replace(case, invariant="", warm=False), {name: arguments[name] for name in case.arrays})

    @property
    def arguments(self) -> dict[str, Any]:
        """Arrays and options by name."""
        return {**self.arrays, **self.case.options}

    def only(self, part: Part) -> Call:
        """The call on a part of its arrays; an index may repeat or reorder."""
        arrays = dict(self.arrays)
        for name, letter, axis in self._axes_of(part):
            arrays[name] = np.take(arrays[name], part[letter], axis=axis)
        dims = {**self.case.dims, **{letter: len(index) for letter, index in part.items()}}
        return replace(self, case=replace(self.case, dims=dims), arrays=arrays)

    def elsewhere(self, part: Part, fill: Callable[[np.ndarray], np.ndarray]) -> Call:
        """The call with other elements outside of a part."""
        changed = {}
        for name, letter, axis in self._axes_of(part):
            array = self.arrays[name]
            kept = np.isin(np.arange(array.shape[axis]), part[letter])
            kept = kept.reshape([-1 if other == axis else 1 for other in range(array.ndim)])
            changed[name] = np.where(kept, array, fill(array)).astype(array.dtype)
        return self.put(**changed)

    def put(self, **arrays: np.ndarray) -> Call:
        """The call with other arrays of the same shapes; one that was expanded need not repeat any longer."""
        recipes = {
            name: replace(recipe, layout="contiguous") if name in arrays and recipe.layout.startswith("expanded") else recipe
            for name, recipe in self.case.arrays.items()
        }
        return replace(self, case=replace(self.case, arrays=recipes), arrays={**self.arrays, **arrays})

    def add(self, name: str, array: np.ndarray, axes: tuple[str, ...]) -> Call:
        """The call with one more array."""
        recipes = {**self.case.arrays, name: ArrayRecipe("zeros", axes=axes)}
        return replace(self, case=replace(self.case, arrays=recipes), arrays={**self.arrays, name: array})

    def without(self, *names: str) -> Call:
        """The call without some optional arrays and options."""
        return replace(self, case=without(self.case, *names), arrays=_without(self.arrays, *names))

    def _axes_of(self, part: Part) -> list[tuple[str, str, int]]:
        """Name, letter and axis of the arrays that a part divides."""
        axes = {name: self.case.axes(name) for name in self.arrays}
        return [(name, letter, own.index(letter)) for name, own in axes.items() for letter in part if letter in own]


def without(case: Case, *names: str) -> Case:
    """A case without some optional arrays and options."""
    return replace(case, arrays=_without(case.arrays, *names), options=_without(case.options, *names))


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def part_of(case: Case, letter: str, index: np.ndarray, head_map: str) -> Part:
    """The part at some indices along a letter; key/value heads bring the query heads that read them."""
    if letter != KV_HEADS:
        return {letter: index}
    heads = np.arange(case.dims[QUERY_HEADS]).reshape(-1, case.dims[KV_HEADS])
    if head_map == "grouped":
        heads = np.arange(case.dims[QUERY_HEADS]).reshape(case.dims[KV_HEADS], -1).T
    read = heads[:, index]  # (group, heads chosen)
    return {KV_HEADS: index, QUERY_HEADS: (read.T if head_map == "grouped" else read).ravel()}


def embedded(outputs: Outputs, case: Case, part: Part) -> Outputs:
    """What a part returned, in its place in the outputs of the whole; nothing is claimed of the rest."""
    placed = []
    for spec, own in zip(case.specification.signature.outputs, outputs, strict=True):
        shape = tuple(case.dims[letter] for letter in spec.dims)
        where = np.ix_(*(part[letter] if letter in part else np.arange(case.dims[letter]) for letter in spec.dims))
        value, budget = np.zeros(shape, own.value.dtype), np.full(shape, np.inf)
        value[where], budget[where] = own.value, own.budget
        placed.append(Expected(value, budget))
    return tuple(placed)


def restricted(outputs: Outputs, case: Case, part: Part) -> Outputs:
    """The outputs of the whole, of which nothing is claimed outside of a part."""
    inside = []
    for spec, own in zip(case.specification.signature.outputs, outputs, strict=True):
        where = np.ix_(*(part[letter] if letter in part else np.arange(case.dims[letter]) for letter in spec.dims))
        inside.append(Expected(own.value[where], own.budget[where]))
    return embedded(tuple(inside), case, part)
