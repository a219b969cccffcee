"""Arrays shared between the judge and a worker: one file-backed memory map, so nothing large passes through a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from oracle.formats import FORMATS

__all__ = ["Arena", "ArrayView", "dtype_named"]

ALIGNMENT = 64
SMALLEST = 1 << 20


def dtype_named(name: str) -> np.dtype:
    """NumPy dtype of a name, bfloat16 included."""
    return FORMATS[name].dtype if name in FORMATS else np.dtype(name)


@dataclass(frozen=True)
class ArrayView:
    """Where an array lies in the arena.

    Attributes:
        name: of the argument or output.
        dtype: of its elements, by name.
        shape: as in NumPy.
        strides: in bytes, as in NumPy.
        offset: of its first element, in bytes.
        start, size: the memory that belongs to it, gaps included: what a framework calls its storage.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    start: int
    size: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ArrayView:
        """Undo `to_json`."""
        return cls(data["name"], data["dtype"], tuple(data["shape"]), tuple(data["strides"]), data["offset"], data["start"], data["size"])


class Arena:
    """A growing block of shared memory. Both sides hold the same file descriptor and map it."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            handle, path = tempfile.mkstemp(prefix="attest-", dir=folder)
            os.unlink(path)  # the memory lives as long as somebody holds the descriptor
            descriptor = handle
            os.ftruncate(descriptor, SMALLEST)
        self.descriptor = descriptor
        self._map()

    def _map(self) -> None:
        self.size = os.fstat(self.descriptor).st_size
        self.memory = np.frombuffer(mmap.mmap(self.descriptor, self.size), dtype=np.uint8)

    def reserve(self, size: int) -> None:
        """Make the arena at least ``size`` bytes large; earlier views stay valid."""
        if size > self.size:
            if size > os.fstat(self.descriptor).st_size:
                os.ftruncate(self.descriptor, max(size, 2 * self.size))
            self._map()

    def view(self, where: ArrayView) -> np.ndarray:
        """The array that lies there."""
        return np.ndarray(where.shape, dtype_named(where.dtype), self.memory.data, where.offset, where.strides)

    def storage(self, where: ArrayView) -> np.ndarray:
        """All the memory that belongs to the array, as one dimension of its elements."""
        return self.memory[where.start : where.start + where.size].view(dtype_named(where.dtype))

    def store(self, name: str, array: np.ndarray, offset: int) -> ArrayView:
        """Copy an array to an offset, contiguously."""
        strides = tuple(_contiguous_strides(array.shape, array.itemsize))
        where = ArrayView(name, array.dtype.name, array.shape, strides, offset, offset, array.nbytes)
        self.reserve(offset + array.nbytes)
        self.view(where)[...] = array
        return where

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)


def _contiguous_strides(shape: Iterable[int], itemsize: int) -> list[int]:
    strides: list[int] = []
    for size in reversed(tuple(shape)):
        strides.insert(0, itemsize)
        itemsize *= max(size, 1)
    return strides


def aligned(offset: int) -> int:
    """The next aligned offset."""
    return -(-offset // ALIGNMENT) * ALIGNMENT
