"""Between a case and a worker: how arguments are encoded for a call, and outputs decoded.

Layout and calling conventions are applied here, on the judge's side, so a worker only ever makes the call it is told to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.arena import Arena, ArrayView, aligned
from conformance.cases.case import Case
from conformance.cases.layouts import broadcast_axis, lay_out
from conformance.registry import Implementation
from oracle.signature import ArraySpec

__all__ = ["Caller", "Output", "Response"]


@dataclass(frozen=True)
class Output:
    """One output of a call, as plain data.

    Attributes:
        name: in the method's signature.
        array: its elements in the method's own order of axes; None when it was no array of the backend.
        type: what it was, when it was none.
        aliases_input: whether it shares memory with an argument.
        requires_grad: whether it drags a graph along.
        device: where it was.
    """

    name: str
    array: np.ndarray | None
    type: str | None = None
    aliases_input: bool = False
    requires_grad: bool = False
    device: str | None = None


@dataclass(frozen=True)
class Response:
    """What became of one call.

    Attributes:
        outputs: in the order of the signature.
        count: how many there were.
        exception: type and message of an exception, instead.
        traceback: its last frames.
        changed_later: whether a later call changed the outputs.
        inputs_changed: names of the arguments whose memory was written to.
    """

    outputs: tuple[Output, ...] = ()
    count: int = 0
    exception: str | None = None
    traceback: str = ""
    changed_later: bool = False
    inputs_changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Stored:
    name: str
    base: np.ndarray
    view: ArrayView
    start: int


class Caller:
    """Encodes the calls of one implementation in an arena, and decodes what came back."""

    def __init__(self, implementation: Implementation, arena: Arena) -> None:
        self.implementation, self.arena = implementation, arena
        self._stored: list[list[_Stored]] = []

    def request(self, cases: list[tuple[Case, dict[str, Any]]]) -> dict[str, Any]:
        """The request that calls the implementation on each case, with its arguments, in turn."""
        self._stored, calls, offset = [], [], 0
        for case, arguments in cases:
            stored, offset = self._store(case, arguments, offset)
            self._stored.append(stored)
            method = case.specification
            calls.append({
                "arrays": [array.view.to_json() for array in stored],
                "positional": [spec.name for spec in method.signature.required],
                "options": {**case.options, **case.tunables},
                "outputs": [spec.name for spec in method.signature.outputs],
            })  # fmt: skip
        return {"do": "call", "size": offset, "calls": calls}

    def responses(self, reply: dict[str, Any], case: Case) -> list[Response]:
        """Decode the answer to the last request."""
        return [self._response(report, stored, case) for report, stored in zip(reply["reports"], self._stored, strict=False)]

    def _store(self, case: Case, arguments: dict[str, Any], offset: int) -> tuple[list[_Stored], int]:
        stored = []
        for spec in case.specification.signature.inputs:
            if spec.name not in arguments:
                continue
            values, axes = self._permuted(self._as_declared(spec, arguments[spec.name], case), case.axes(spec.name))
            layout = case.arrays[spec.name].layout
            base, view = lay_out(values, layout, broadcast_axis(layout, values.shape, axes))
            start = aligned(offset)
            offset = start + base.nbytes
            self.arena.reserve(offset)
            self.arena.memory[start:offset] = base.view(np.uint8)
            inner = view.__array_interface__["data"][0] - base.__array_interface__["data"][0] if view.size else 0
            where = ArrayView(spec.name, view.dtype.name, view.shape, view.strides, start + inner)
            stored.append(_Stored(spec.name, base, where, start))
        return stored, offset

    def _as_declared(self, spec: ArraySpec, values: np.ndarray, case: Case) -> np.ndarray:
        conventions = self.implementation.conventions
        if spec.name != "mask":
            return values
        if conventions.get("mask_type") == "additive":
            return np.where(values, 0.0, -np.inf).astype(case.storage(spec).dtype)
        return ~values if conventions.get("mask_polarity") == "block" else values

    def _order(self, axes: int) -> list[int] | None:
        """Where the declared layout puts each of the method's axes; the last letters are dropped for shorter arrays."""
        if self.implementation.layout is None:
            return None
        from oracle import get_method

        letters = get_method(self.implementation.method).signature.required[0].dims
        declared = self.implementation.layout.split()
        order = [letters.index(letter) for letter in declared if letters.index(letter) < axes]
        return order if len(order) == axes else None

    def _permuted(self, values: np.ndarray, axes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        order = self._order(values.ndim) if "1" not in axes and values.ndim == 4 else None
        if order is None:
            return values, axes
        return np.ascontiguousarray(values.transpose(order)), tuple(axes[index] for index in order)

    def _response(self, report: dict[str, Any], stored: list[_Stored], case: Case) -> Response:
        changed = tuple(
            array.name for array in stored
            if not np.array_equal(self.arena.memory[array.start : array.start + array.base.nbytes], array.base.view(np.uint8))
        )  # fmt: skip
        if "exception" in report:
            return Response(exception=f"{report['exception']}: {report['message']}", traceback=report["traceback"], inputs_changed=changed)
        return Response(
            outputs=tuple(self._output(output) for output in report["outputs"]),
            count=report["count"],
            changed_later=report["changed_later"],
            inputs_changed=changed,
        )

    def _output(self, facts: dict[str, Any]) -> Output:
        array = None
        if "view" in facts:
            where = ArrayView.from_json(facts["view"])
            size = int(np.prod(where.shape)) * np.dtype(where.dtype if where.dtype != "bfloat16" else "uint16").itemsize
            self.arena.reserve(where.offset + size)
            array = self.arena.view(where).copy()
            order = self._order(array.ndim)
            if order is not None:
                array = array.transpose(np.argsort(order))
        return Output(
            facts["name"],
            array,
            facts.get("type"),
            facts.get("aliases_input", False),
            facts.get("requires_grad", False),
            facts.get("device"),
        )
