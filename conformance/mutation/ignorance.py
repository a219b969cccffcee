"""Options and axes that an implementation does not look at: always, or on one occasion only.

An option that is ignored on one occasion is the mistake of a kernel with a path of its own for that occasion, such as a
decode path without the window. Every option is paired with every other one and with what the dimensions may be like.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conformance.registry import Implementation
from oracle import get_method
from oracle.catalogue import Method
from oracle.signature import ArraySpec

__all__ = ["OCCASIONS", "Ignorance", "first_along", "ignorance"]

# What the dimensions of a call may be like, as text over the arguments.
OCCASIONS = {
    "grouped heads": "q.shape[1] != k.shape[1]",
    "several key/value heads": "k.shape[1] > 1",
    "Lq < Lk": "q.shape[2] < k.shape[2]",
    "Lq > Lk": "q.shape[2] > k.shape[2]",
    "Lq = Lk": "q.shape[2] == k.shape[2]",
    "one query": "q.shape[2] == 1 < k.shape[2]",
    "Dv != D": "q.shape[3] != v.shape[3]",
    "several sequences": "q.shape[0] > 1",
    "several tiles of keys": "k.shape[2] > 64",
    "more than 512 keys": "k.shape[2] > 512",
    "a ragged tile of keys": "k.shape[2] % 16 != 0",
    "full tiles of keys": "k.shape[2] % 16 == 0 < k.shape[2]",
    "a width not a multiple of 8": "q.shape[3] % 8 != 0",
}


@dataclass(frozen=True)
class Ignorance:
    """A statement that makes a function forget a part of its arguments.

    Attributes:
        operator: the kind of mistake.
        words: what is ignored, and when.
        statement: source, over the names of the arguments and `first_along`.
    """

    operator: str
    words: str
    statement: str


def ignorance(implementation: Implementation) -> Iterator[Ignorance]:
    """Everything that the function of an implementation can ignore."""
    method = get_method(implementation.method)
    shapes = OCCASIONS if "s" in method.signature.dims else {}
    occasions = {f"{option} is given": _given(method, option) for option in implementation.options} | shapes
    for option in implementation.options:
        for what, statement in _ways(method, option).items():
            yield Ignorance("ignore option", f"ignore {what}", statement)
            for occasion, condition in occasions.items():
                if occasion != f"{option} is given":
                    yield Ignorance("ignore option on occasion", f"ignore {what} when {occasion}", f"if {condition}: {statement}")
    for spec in method.signature.inputs:
        if not spec.optional or spec.name in implementation.options:
            yield from _axes(spec, occasions)


def first_along(array: np.ndarray | None, axis: int) -> np.ndarray | None:
    """The first elements along an axis, counted from the end, in the place of all others; the array itself without that axis."""
    if array is None or array.ndim < -axis or array.shape[axis] == 0:
        return array
    return np.broadcast_to(np.take(array, [0], axis=axis), array.shape)


def _given(method: Method, option: str) -> str:
    return option if method.options.get(option) == "flag" else f"{option} is not None"


def _ways(method: Method, option: str) -> dict[str, str]:
    """What of an option can be ignored, and the statement that does so."""
    ways = {option: f"{option} = {method.default(option)!r}"}
    if method.options.get(option) == "window":
        ways["window's left bound"] = "window = window and (None, window[1])"
        ways["window's right bound"] = "window = window and (window[0], None)"
    return ways


def _axes(spec: ArraySpec, occasions: dict[str, str]) -> Iterator[Ignorance]:
    for index, letter in enumerate(spec.dims):
        what = f"axis {letter} of {spec.name}"
        statement = f"{spec.name} = first_along({spec.name}, {index - len(spec.dims)})"
        yield Ignorance("ignore axis", f"ignore {what}", statement)
        if spec.optional:
            for occasion, condition in occasions.items():
                if occasion != f"{spec.name} is given":
                    yield Ignorance("ignore axis on occasion", f"ignore {what} when {occasion}", f"if {condition}: {statement}")
