"""Options and axes that an implementation does not look at: always, or on one occasion only.

An option that is ignored on one occasion is the mistake of a kernel with a path of its own for that occasion, such as a
decode path without the window. Every option is paired with every other one and with what the dimensions may be like.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conformance.cases.features import shapes_of
from conformance.registry import Implementation
from oracle import get_method
from oracle.catalogue import Method
from oracle.signature import ArraySpec, Signature

__all__ = ["Ignorance", "first_along", "ignorance"]


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
    occasions = {f"{option} is given": _given(method, option) for option in implementation.options}
    occasions |= {name: _over_arrays(condition, method) for name, condition in shapes_of(method).items()}
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


class _Shapes(ast.NodeTransformer):
    """Puts the size of an array's axis for each dimension."""

    def __init__(self, signature: Signature) -> None:
        self._sizes = {dim: f"{spec.name}.shape[{axis}]" for spec in signature.required for axis, dim in enumerate(spec.dims)}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(self._sizes[node.id], mode="eval").body


def _over_arrays(condition: str, method: Method) -> str:
    """A condition over dimensions as one over the required arrays of a method."""
    return ast.unparse(_Shapes(method.signature).visit(ast.parse(condition, mode="eval")))


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
