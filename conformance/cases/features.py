"""What a call exercises, by name: what a certificate counts, alone and in pairs, and what a mistake may depend on."""

from __future__ import annotations

from dataclasses import replace

from conformance.cases.case import Case
from oracle.catalogue import PLAIN_DTYPES, Method
from oracle.conditions import condition_names, holds

__all__ = ["SHAPES", "features", "shapes_of"]

# What the dimensions may be like: conditions over the letters of a signature.
SHAPES = {
    "several sequences": "b > 1",
    "several key/value heads": "g > 1",
    "grouped heads": "h != g",
    "Lq < Lk": "l < s",
    "Lq = Lk": "l == s",
    "Lq > Lk": "l > s",
    "one query": "l == 1 < s",
    "more than 64 keys": "s > 64",
    "more than 512 keys": "s > 512",
    "keys a multiple of 16": "s % 16 == 0 < s",
    "keys no multiple of 16": "s % 16 != 0",
    "Dv != D": "d != e",
    "D no multiple of 8": "d % 8 != 0",
    "several parts": "n > 1",
}

_STRIDED = ("transposed", "strided", "padded", "swapped")


def shapes_of(method: Method) -> dict[str, str]:
    """The conditions of `SHAPES` that a method has the dimensions for."""
    return {name: condition for name, condition in SHAPES.items() if condition_names(condition) <= set(method.signature.dims)}


def features(case: Case) -> list[str]:
    """The options that a call gives, what its shapes are like, and what its arrays hold, in a fixed order."""
    method = case.specification
    found = sorted({*case.options, *(spec.name for spec in method.signature.optional if spec.name in case.arrays)})
    found += [name for name, condition in shapes_of(method).items() if holds(condition, case.dims)]
    recipes = case.arrays.values()
    others = {
        "no keys": case.dims.get("s") == 0,
        "rows without keys": _has_empty_rows(case),
        "parts without keys": any(recipe.recipe == "empty_parts" for recipe in recipes),
        "garbage in hidden keys": any(recipe.garbage for recipe in recipes),
        "a broadcast mask or bias": any(recipe.axes is not None for recipe in recipes),
        "a strided layout": any(recipe.layout in _STRIDED for recipe in recipes),
        "a layout with stride 0": any(recipe.layout.startswith("expanded") for recipe in recipes),
        "an earlier call": case.warm,
    }
    return found + [name for name, holds_here in others.items() if holds_here]


def _has_empty_rows(case: Case) -> bool:
    method = case.specification
    if method.visible is None:
        return False
    plain = {spec.name for spec in method.signature.inputs if spec.kind in PLAIN_DTYPES}
    arrays = {name: recipe for name, recipe in case.arrays.items() if name in plain}
    return not bool(method.visible(replace(case, arrays=arrays).arguments(), case.dims).any(axis=-1).all())
