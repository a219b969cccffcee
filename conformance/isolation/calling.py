"""Between a case and a worker: how arguments are encoded for a call, and outputs decoded.

Layout and calling conventions are applied here, on the judge's side, so a worker only ever makes the call it is told to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conformance.cases.case import Case
from conformance.cases.layouts import broadcast_axis, declared_order, lay_out
from conformance.isolation.arena import Arena, ArrayView, aligned, dtype_named
from conformance.isolation.codes import decoded, stored
from conformance.isolation.direct import spelt_out
from conformance.registry import Implementation
from oracle import get_method
from oracle.signature import ArraySpec

__all__ = ["Caller", "Output", "Response"]

# Fills the place of an output until it is written: NaN in every format.
UNWRITTEN = 0xFF

LONGEST_TEXT = 2000


@dataclass(frozen=True)
class Output:
    """One output of a call, as plain data.

    Attributes:
        name: in the method's signature.
        array: its elements in the method's own order of axes; None where it was not what it should be.
        type: what it was, when it was no array of the backend.
        shape, dtype: of an array.
        unreadable: why an array of the right shape and dtype has no elements.
        aliases_input: whether it shares memory with an argument.
        shares_memory: whether it shares memory with an output of an earlier call.
        requires_grad: whether it drags a graph along.
        device: where it was.
    """

    name: str
    array: np.ndarray | None
    type: str | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""
    unreadable: str = ""
    aliases_input: bool = False
    shares_memory: bool = False
    requires_grad: bool = False
    device: str | None = None


@dataclass(frozen=True)
class Response:
    """What became of one call.

    Attributes:
        outputs: in the order of the signature.
        count: how many there were.
        exception: type and message of an exception, instead.
        found: the kind of finding that a driver of attest's own makes of it; "" for an exception of the implementation's.
        traceback: its last frames.
        changed_later: whether a later call changed the outputs.
        changed_earlier: whether this call or the ones just before it changed the output of a case before this one.
        inputs_changed: names of the arguments whose memory was written to, and of the lists that are no longer what they were.
        state_changed: what the call changed that all code in its process shares.
        running: threads and child processes that the calls so far have left.
    """

    outputs: tuple[Output, ...] = ()
    count: int = 0
    exception: str | None = None
    found: str = ""
    traceback: str = ""
    changed_later: bool = False
    changed_earlier: bool = False
    inputs_changed: tuple[str, ...] = ()
    state_changed: tuple[str, ...] = ()
    running: int = 0


@dataclass(frozen=True)
class _Placed:
    """An argument laid out in memory: its contiguous base, and the view of it."""

    name: str
    base: np.ndarray
    view: np.ndarray

    @property
    def bytes(self) -> np.ndarray:
        """The base as bytes."""
        return self.base.view(np.uint8)

    def at(self, start: int) -> ArrayView:
        """The view, when the base lies at an offset of the arena."""
        inner = self.view.__array_interface__["data"][0] - self.base.__array_interface__["data"][0] if self.view.size else 0
        return ArrayView(self.name, self.view.dtype.name, self.view.shape, self.view.strides, start + inner, start, self.base.nbytes)


class Caller:
    """Encodes the calls of one implementation in an arena, and decodes what came back."""

    def __init__(self, implementation: Implementation, arena: Arena) -> None:
        self.implementation, self.arena = implementation, arena
        self._placed: list[_Placed] = []
        self._starts: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._calls: list[dict[str, Any]] = []
        self._case = Case("", "", {}, {})

    def request(
        self, case: Case, arguments: dict[str, Any], warm_up: tuple[Case, dict[str, Any]] | None = None, identical: int = 2
    ) -> dict[str, Any]:  # fmt: skip
        """The request that calls the implementation on a case, after another call where there is one.

        The warm-up's arguments lie at the same addresses, so that an implementation that remembers addresses shows it.

        Args:
            case: to call it on.
            arguments: of the case.
            warm_up: the call before, with its arguments.
            identical: how many calls to make on the case.
        """
        self._placed, self._case = self._place(case, arguments), case
        before = self._place(*warm_up) if warm_up else []
        self._starts, offset = {}, 0
        for array in sorted([*self._placed, *before], key=lambda array: -array.base.nbytes):
            if array.name not in self._starts:
                self._starts[array.name] = aligned(offset)
                offset = self._starts[array.name] + array.base.nbytes
        if warm_up is None:
            self.arena.reserve(offset)
            for array in self._placed:
                self._write(array, self._starts[array.name])
            calls = [self._call(case, self._placed, [])]
        else:
            calls = []
            for own, arrays in ((warm_up[0], before), (case, self._placed)):
                copies = []
                for array in arrays:
                    staged = aligned(offset)
                    offset = staged + array.base.nbytes
                    self.arena.reserve(offset)
                    self._write(array, staged)
                    copies.append([staged, self._starts[array.name], array.base.nbytes])
                calls.append(self._call(own, arrays, copies))
        # The second call may undo what the first did to its arguments, so their memory is kept as the first one left it.
        self._kept = {}
        for array in self._placed:
            self._kept[array.name] = aligned(offset)
            offset = self._kept[array.name] + array.base.nbytes
        calls[-1]["keep"] = [[self._starts[array.name], self._kept[array.name], array.base.nbytes] for array in self._placed]
        calls += [self._call(case, self._placed, []) for _ in range(identical - 1)]
        for call in calls:
            for output in call["outputs"]:
                output["at"] = aligned(offset)
                offset = output["at"] + output["bytes"]
        self.arena.reserve(offset)
        for call in calls:
            for output in call["outputs"]:  # whatever lies there from earlier calls is no answer to this one
                self.arena.memory[output["at"] : output["at"] + output["bytes"]] = UNWRITTEN
        self._calls = calls
        return {"do": "call", "size": offset, "calls": calls}

    def _write(self, array: _Placed, start: int) -> None:
        self.arena.memory[start : start + array.base.nbytes] = array.bytes

    def _call(self, case: Case, arrays: list[_Placed], copies: list[list[int]]) -> dict[str, Any]:
        signature = case.specification.signature
        return {
            "copies": copies,
            "keep": [],
            "layout": self.implementation.layout,
            "arrays": [array.at(self._starts[array.name]).to_json() for array in arrays],
            "positional": [spec.name for spec in case.specification.positional],
            "options": {**spelt_out(self.implementation, case), **case.options, **case.tunables},
            "kinds": {name: kind for name, kind in case.specification.options.items() if kind in ("pattern", "positions")},
            "outputs": [self._output_wanted(case, spec) for spec in signature.outputs],
        }

    def _output_wanted(self, case: Case, spec: ArraySpec) -> dict[str, Any]:
        """What the worker may store of an output: nothing but what has this shape and one of these dtypes."""
        shape, dtypes, order = case.stored_shape(spec), case.output_dtypes(spec), self._order(spec.dims)
        placed = shape if order is None else tuple(shape[axis] for axis in order)
        size = math.prod(shape) * max(dtype_named(dtype).itemsize for dtype in dtypes)
        return {"name": spec.name, "shape": placed, "dtypes": dtypes, "bytes": size}

    def responses(self, reply: dict[str, Any]) -> list[Response]:
        """Decode the answer to the last request.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it is no answer to it.
        """
        reports = reply["reports"]
        if len(reports) != len(self._calls) and not (reports and "exception" in reports[-1]):
            raise ValueError(f"{len(reports)} reports of {len(self._calls)} calls")
        after_each = self._starts, self._kept if len(reports) > 1 else self._starts
        changed = tuple(
            array.name for array in self._placed if not all(np.array_equal(self._read(array, at), array.bytes) for at in after_each)
        )
        running = int(reply["running"])
        return [self._response(report, call, changed, running) for report, call in zip(reports, self._calls, strict=False)]

    def _read(self, array: _Placed, at: dict[str, int]) -> np.ndarray:
        start = at[array.name]
        return self.arena.memory[start : start + array.base.nbytes]

    def _place(self, case: Case, arguments: dict[str, Any]) -> list[_Placed]:
        placed = []
        for spec in case.specification.signature.inputs:
            if spec.name in arguments:
                form = case.code_format(spec)
                given = arguments[spec.name] if form is None else stored(arguments[spec.name], form)
                values, axes = self._permuted(self._as_declared(spec, given, case), case.axes(spec.name))
                layout = case.arrays[spec.name].layout
                placed.append(_Placed(spec.name, *lay_out(values, layout, broadcast_axis(layout, values.shape, axes))))
        return placed

    def _as_declared(self, spec: ArraySpec, values: np.ndarray, case: Case) -> np.ndarray:
        conventions = self.implementation.conventions
        if spec.name != "mask":
            return values
        if conventions.get("mask_type") == "additive":
            return np.where(values, 0.0, -np.inf).astype(case.storage(spec).dtype)
        return ~values if conventions.get("mask_polarity") == "block" else values

    def _order(self, axes: tuple[str, ...]) -> list[int] | None:
        """Where the declared layout puts the axes of an array; None for arrays that it does not speak of."""
        return declared_order(self.implementation.layout, get_method(self.implementation.method), axes)

    def _permuted(self, values: np.ndarray, axes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        order = self._order(axes)
        if order is None:
            return values, axes
        return np.ascontiguousarray(values.transpose(order)), tuple(axes[index] for index in order)

    def _response(self, report: dict[str, Any], call: dict[str, Any], changed: tuple[str, ...], running: int) -> Response:
        state = tuple(_text(change) for change in report["state"])
        if "exception" in report:
            found = _text(report["found"])
            return Response(
                exception=_text(report["message"]) if found else f"{_text(report['exception'])}: {_text(report['message'])}",
                found=found,
                traceback="\n".join(_text(line) for line in str(report["traceback"]).splitlines()),
                inputs_changed=changed,
                state_changed=state,
            )
        outputs = (self._output(facts, wanted) for facts, wanted in zip(report["outputs"], call["outputs"], strict=False))
        return Response(
            outputs=tuple(self._decoded(output, self._case) for output in outputs),
            count=int(report["count"]),
            changed_later=bool(report["changed_later"]),
            changed_earlier=bool(report.get("changed_earlier")),
            inputs_changed=(*changed, *map(_text, report["options_changed"])),
            state_changed=state,
            running=running,
        )

    def _decoded(self, output: Output, case: Case) -> Output:
        """An output of codes as the numbers that they stand for."""
        spec = next(spec for spec in case.specification.signature.outputs if spec.name == output.name)
        form = case.code_format(spec)
        if form is None or output.array is None:
            return output
        return replace(output, array=decoded(output.array, form, case.output_shape(spec)))

    def _output(self, facts: dict[str, Any], wanted: dict[str, Any]) -> Output:
        spec = next(spec for spec in get_method(self.implementation.method).signature.outputs if spec.name == wanted["name"])
        if "type" in facts:
            return Output(spec.name, None, _text(facts["type"]))
        shape, dtype, order = tuple(int(size) for size in facts["shape"]), _text(facts["dtype"]), self._order(spec.dims)
        back = None if order is None or len(shape) != len(order) else np.argsort(order)
        array, unreadable = None, _text(facts.get("unreadable", ""))
        if shape == wanted["shape"] and dtype in wanted["dtypes"] and not unreadable:
            array = self.arena.contiguous(dtype, shape, wanted["at"]).copy()
            array = array if back is None else array.transpose(back)
        return Output(
            spec.name,
            array,
            None,
            shape if back is None else tuple(shape[axis] for axis in back),
            dtype,
            unreadable,
            bool(facts["aliases_input"]),
            bool(facts["shares_memory"]),
            bool(facts.get("requires_grad")),
            _text(facts["device"]) if "device" in facts else None,
        )


def _text(value: Any) -> str:
    """Words of a worker as one printable line: a kernel chooses them."""
    return "".join(character if character.isprintable() else " " for character in str(value)[:LONGEST_TEXT]).rstrip()
