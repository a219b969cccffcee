"""Mistakes of addressing: queries, keys or values are looked for where a contiguous array would have them.

The memory is that of the case's layouts (`conformance.cases.layouts`), gaps included. Where a mistake reads beyond it, what it
finds is anybody's guess, and it counts as one that does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from conformance.cases.layouts import lay_out
from conformance.pitfalls import Setting
from conformance.pitfalls.dense import Array, Reference


class Misread(Reference):
    """Some arrays are read from wrong addresses.

    Attributes:
        arrays: their names.
    """

    arrays: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    needs = "misread"

    def __init__(self, arguments: Mapping[str, Any], setting: Setting) -> None:
        super().__init__(arguments, setting)
        laid_out = {name: lay_out(arguments[name], *setting.layouts[name]) for name in self.arrays if name in setting.layouts}
        self.read = {name: self.addressed(*memory) for name, memory in laid_out.items()}
        self.q, self.k, self.v = (arguments[name] if (read := self.read.get(name)) is None else read for name in "qkv")

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and whether some array is misread and none beyond its memory."""
        return {**super().facts(), "misread": self.misread}

    def misread(self) -> bool:
        """Whether some array is misread and none beyond its memory."""
        if any(read is None for read in self.read.values()):
            return False
        return not all(np.array_equal(np.asarray(read), self.arguments[name]) for name, read in self.read.items())

    def addressed(self, memory: Array, view: Array) -> Array | None:
        """What is read in place of a view of the memory; None where that lies beyond the memory."""
        raise NotImplementedError


class StridesIgnored(Misread):
    name = "strides-ignored"
    explanation = "Queries, keys and values are read as if contiguous: the strides of a view are not looked at."
    citation = "pytorch#181133"

    def addressed(self, memory: Array, view: Array) -> Array | None:
        start = _start(memory, view)
        return memory[start : start + view.size].reshape(view.shape) if start + view.size <= memory.size else None


class QueryStridesIgnored(StridesIgnored):
    name = "query-strides-ignored"
    explanation = "The queries are read as if contiguous: the strides of a view are not looked at."
    citation = "pytorch#163597"
    arrays = ("q",)


class KeyStridesIgnored(StridesIgnored):
    name = "key-strides-ignored"
    explanation = "The keys are read as if contiguous: the strides of a view are not looked at."
    citation = "pytorch#163597"
    arrays = ("k",)


class ValueStridesIgnored(StridesIgnored):
    name = "value-strides-ignored"
    explanation = "The values are read as if contiguous: the strides of a view are not looked at."
    citation = "pytorch#163597"
    arrays = ("v",)


class RowsTakenForDense(Misread):
    name = "rows-taken-for-dense"
    explanation = "Of the strides those of batch and heads are used, but rows are taken to follow one another without a gap."
    citation = "flashinfer#527"

    def addressed(self, memory: Array, view: Array) -> Array | None:
        if view.strides[3] != view.itemsize and view.shape[3] > 1:
            return view  # such a view is copied first, if it is taken at all
        return _strided(memory, _start(memory, view), view, (*view.strides[:2], view.shape[3] * view.itemsize, view.itemsize))


class StorageOffsetIgnored(Misread):
    name = "storage-offset-ignored"
    explanation = "A slice is read with its strides, but from the start of the memory that it is a slice of."
    citation = "torch-spyre#2906"

    def addressed(self, memory: Array, view: Array) -> Array | None:
        return _strided(memory, 0, view, view.strides)


class ValueOffsetIgnored(StorageOffsetIgnored):
    name = "value-offset-ignored"
    explanation = "Values that are a slice are read with their strides, but from the start of the memory that they are a slice of."
    citation = "torch-spyre#3770"
    arrays = ("v",)


class KeyOffsetIgnored(StorageOffsetIgnored):
    name = "key-offset-ignored"
    explanation = "Keys that are a slice are read with their strides, but from the start of the memory that they are a slice of."
    citation = "torch-spyre#3770"
    arrays = ("k",)


class StorageOrder(Misread):
    name = "read-in-storage-order"
    explanation = "Elements are taken in the order in which they lie in memory: a transposed view becomes what it is a view of."
    citation = "pytorch#181133"

    def addressed(self, memory: Array, view: Array) -> Array | None:
        return None if 0 in view.strides else np.ravel(view, order="K").reshape(view.shape)


class OutputMemory(Reference):
    """Memory of the output is ordered like that of the queries, or taken to be."""

    needs = "reordered"

    def facts(self) -> dict[str, Any]:
        """Those of the reference, and whether the order matters."""
        return {**super().facts(), "reordered": lambda: self.order() != [0, 1, 2, 3] and self.width == self.v.shape[3]}

    def order(self) -> list[int]:
        """The axes of the queries, the one with the largest stride first."""
        if "q" not in self.setting.layouts:
            return [0, 1, 2, 3]
        _, view = lay_out(self.q, *self.setting.layouts["q"])
        return sorted(range(4), key=lambda axis: -view.strides[axis])

    def reordered(self, out: Array) -> Array:
        """The output as it is found."""
        raise NotImplementedError

    def finished(self, out: Array, lse: Array) -> tuple[Array, Array]:
        """With the output reordered."""
        out, lse = super().finished(out, lse)
        return self.reordered(out), lse


class OutputViewedLikeQueries(OutputMemory):
    name = "output-viewed-with-strides-of-queries"
    explanation = "The output is written as if contiguous into memory that is shaped like the queries', transposed where they are."
    citation = "flashinfer#1865"

    def reordered(self, out: Array) -> Array:
        order = self.order()
        return np.ascontiguousarray(out).reshape([out.shape[axis] for axis in order]).transpose(np.argsort(order))


class OutputStoredLikeQueries(OutputMemory):
    name = "output-written-with-strides-of-queries"
    explanation = "The output is written with the strides of the queries into memory that is contiguous."
    citation = "flashinfer#1865"

    def reordered(self, out: Array) -> Array:
        return np.ascontiguousarray(out.transpose(self.order())).reshape(out.shape)


def _start(memory: Array, view: Array) -> int:
    """The index of a view's first element in its memory."""
    start: int = view.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    return start // view.itemsize


def _strided(memory: Array, start: int, view: Array, strides: tuple[int, ...]) -> Array | None:
    """Memory in the shape of a view under other strides; None where that reaches beyond it."""
    last = start + sum((size - 1) * stride for size, stride in zip(view.shape, strides, strict=True)) // view.itemsize
    return np.lib.stride_tricks.as_strided(memory[start:], view.shape, strides) if view.size and last < memory.size else None
