"""The numpy backend: arguments are views of shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance.isolation.arena import Arena, ArrayView
from conformance.isolation.backends.arrays import POISON, Arrays, Generator, Setting, facts_of, span_of
from oracle.codes import CODE_FORMATS
from oracle.formats import FORMATS

__all__ = ["NumpyArrays"]

# NumPy keeps freed blocks up to this size for itself, in lists of up to 7, out of the reach of the C library's poison.
NUMPY_KEEPS_BELOW = 1024
NUMPY_KEEPS = 7


class NumpyArrays(Arrays):
    """How the numpy backend takes and gives arrays."""

    name = "numpy"
    title = "NumPy"
    packages = ("numpy",)
    array = "numpy.ndarray"
    shared_modules = ("numpy", "numpy.linalg")
    baseline = "numpy.standard"

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A view of shared memory as this backend's array."""
        return arena.view(where)

    def blank(self) -> Any:
        """An array without elements."""
        return np.empty(0)

    def of(self, array: np.ndarray) -> Any:
        """A copy of an array as one of this backend."""
        return array.copy()

    def number(self, output: Any) -> Any:
        """A NumPy number, or an integer, where an output is a single number, as an array without axes."""
        plain = isinstance(output, np.generic) and type(output).__module__ in ("numpy", "ml_dtypes")
        return np.asarray(output) if plain or type(output) is int else output

    def facts(self, output: Any) -> dict[str, Any]:
        """What the judge wants to know of an output: its ``type`` if it is no array, else ``shape``, ``dtype`` and the rest."""
        if type(output) is not np.ndarray:
            return {"type": f"{type(output).__module__}.{type(output).__qualname__}"}
        if output.dtype.name not in {*FORMATS, *CODE_FORMATS} and output.dtype.kind not in "biufc":
            return {"type": f"numpy.ndarray of {output.dtype.name[:80]}"}
        return facts_of("numpy.ndarray", output.dtype.name, output.shape)

    def plain(self, output: Any) -> np.ndarray:
        """Its elements as a NumPy array."""
        return output

    def span(self, output: Any) -> range:
        """Addresses of its elements."""
        return span_of(output.__array_interface__["data"][0], output.shape, output.strides, output.itemsize)

    def poison(self, size: int) -> None:
        """Fill what the next allocations of so many bytes may be given where the C library's poison does not reach."""
        if 0 < size < NUMPY_KEEPS_BELOW:
            blocks = [np.empty(size, dtype=np.uint8) for _ in range(NUMPY_KEEPS)]
            for block in blocks:
                block.fill(POISON)

    @staticmethod
    def settings(package: Any) -> Iterator[Setting]:
        """What all code in a process shares of NumPy."""
        yield Setting("the NumPy error mode for", lambda: dict(np.geterr()), lambda value: np.seterr(**value))
        yield Setting("the NumPy print option", lambda: dict(np.get_printoptions()), lambda value: np.set_printoptions(**value))
        yield Setting("the NumPy buffer size", np.getbufsize, np.setbufsize)

    @staticmethod
    def generators(package: Any) -> Iterator[Generator]:
        """The generator behind the functions of `numpy.random`."""
        yield "numpy.random", (np.random.seed, _state)


def _state() -> tuple[bytes, int]:
    state: dict[str, Any] = np.random.get_state(legacy=False)  # type: ignore[assignment]
    return state["state"]["key"].tobytes(), state["state"]["pos"]
