"""Arrays shared between the judge and a worker: one file-backed memory map, so nothing large passes through a pipe.

Only the judge makes it larger, and nobody can make it smaller: memory that vanished under the judge would kill it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
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
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ArrayView:
        """Undo `to_json`."""
        return cls(data["name"], data["dtype"], tuple(data["shape"]), tuple(data["strides"]), data["offset"], data["start"], data["size"])


class Arena:
    """A growing block of shared memory. Both sides hold the same file descriptor and map it."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = _anonymous_file()
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

    def contiguous(self, dtype: str, shape: Iterable[int], offset: int) -> np.ndarray:
        """The contiguous array of a dtype and shape that lies at an offset."""
        return np.ndarray(tuple(shape), dtype_named(dtype), self.memory.data, offset)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)


def _anonymous_file() -> int:
    """A descriptor of memory that lives as long as somebody holds it; on Linux, of memory that cannot shrink."""
    if sys.platform == "linux":
        import fcntl

        descriptor = os.memfd_create("attest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return descriptor
    descriptor, path = tempfile.mkstemp(prefix="attest-")
    os.unlink(path)
    return descriptor


def aligned(offset: int) -> int:
    """The next aligned offset."""
    return -(-offset // ALIGNMENT) * ALIGNMENT
