"""What a backend is: how it takes arguments from shared memory and gives outputs as plain data.

A new one is a subclass in a module of its own, listed in `conformance.isolation.backends`; everything else follows from its
attributes. What is said of a class serves the judge too, so nothing is imported before the class is made into an object.

An output is read only when it is exactly an array of the backend, and described before it is read: one of a wrong shape
may be of any size, and one of a foreign type may do anything when it is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from conformance.errors import UsageError
from conformance.isolation.arena import Arena, ArrayView

__all__ = ["MOST_AXES", "POISON", "Arrays", "Generator", "Setting", "facts_of", "overlap", "span_of"]

# NumPy has no arrays of more; PyTorch has.
MOST_AXES = 64

# Fresh memory is filled with this byte: a huge number (NaN in float16) wherever a kernel never wrote.
POISON = 0x7F

Generator = tuple[str, tuple[Callable[[int], object], Callable[[], Any]]]
"""A random generator of the process: its name, how it is seeded, and its state."""


def overlap(first: range, second: range) -> bool:
    """Whether two ranges of addresses have one in common."""
    return max(first.start, second.start) < min(first.stop, second.stop)


def span_of(address: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> range:
    """Addresses of an array's elements, strides in bytes; empty if it has none."""
    if 0 in shape:
        return range(0)
    reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    return range(address + sum(min(step, 0) for step in reach), address + sum(max(step, 0) for step in reach) + itemsize)


def facts_of(kind: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What is reported of an array."""
    return {"type": f"{kind} with {len(shape)} axes"} if len(shape) > MOST_AXES else {"dtype": dtype, "shape": list(shape)}


@dataclass(frozen=True)
class Setting:
    """One thing that all code in the process shares.

    Attributes:
        name: as its user calls it.
        read: its value; a mapping where it has parts.
        write: sets it back, given the value from before.
        loading: whether loading a module is expected to change it: torch.compile, say, does so when it first compiles.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    loading: bool = False


class Arrays:
    """How a backend takes and gives arrays.

    Attributes:
        name: of the backend.
        title: as its users call it.
        packages: that it comes from, the one to import first.
        preloaded: those of them that a process may import and then be copied, which takes them to make no thread when imported.
        array: what one of its arrays is called.
        strided: whether an array may lie in memory in any order and with gaps; else memory layouts are not varied.
        devices: where its arrays may lie, by kind; the first is the usual one.
        environment: for a kind of device, variables that a worker starts with there, where the user has not set them.
        shared_modules: whose functions no call may replace.
        baseline: the registered implementation that a benchmark holds the others against.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    preloaded: ClassVar[tuple[str, ...]] = ()
    array: ClassVar[str]
    strided: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    environment: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    shared_modules: ClassVar[tuple[str, ...]] = ()
    baseline: ClassVar[str] = ""

    @classmethod
    def on(cls, device: str) -> Arrays:
        """The arrays on a device.

        Raises:
            UsageError: it has no such device, or cannot be imported here.
        """
        if device.partition(":")[0] not in cls.devices:
            kinds = " or ".join(map(repr, cls.devices))
            raise UsageError(f"device={device!r}, but should be {kinds} for the backend {cls.name}")
        try:
            return cls(device)
        except ImportError as error:
            raise UsageError(
                f"backend={cls.name!r} needs {cls.title}, which cannot be imported here ({error}): "
                f"pip install 'attest-attention[{cls.name}]'"
            ) from None
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"device={device!r} cannot be used here, but should be a device that {cls.title} has ({reason})"
            ) from None

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def device_name(self) -> str:
        """What its maker calls the device; "" for the processor."""
        return ""

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A view of shared memory as this backend's array."""
        raise NotImplementedError

    def blank(self) -> Any:
        """An array without elements; None where what `maker` gives is not told apart by its `id`."""
        return None

    def maker(self, arena: Arena, where: ArrayView) -> Callable[[], Any]:
        """What makes `take`'s array, each time as another object, and needs no other array while it does."""
        return partial(self.take, arena, where)

    def of(self, array: np.ndarray) -> Any:
        """A copy of an array as one of this backend."""
        raise NotImplementedError

    def loaded(self, function: Callable[..., Any]) -> tuple[str, ...]:
        """Prepare what a function that has just been loaded needs before its first call; remarks on what is not judged of it here."""
        return ()

    def calling(self, function: Callable[..., Any], dtypes: Collection[str]) -> AbstractContextManager[object]:
        """What arguments of some dtypes are taken, and a function is called, under."""
        return nullcontext()

    def finish(self, result: Any) -> None:
        """Wait until what a call returned has been computed."""

    def lost(self) -> bool:
        """Whether the device has failed for good, as far as this process goes."""
        return False

    def copy_back(self) -> list[range]:
        """Bring what the arguments have become back into shared memory; the addresses where they lay outside of it."""
        return []

    def number(self, output: Any) -> Any:
        """A plain number where an output is a single number, as an array without axes."""
        raise NotImplementedError

    def facts(self, output: Any) -> dict[str, Any]:
        """What the judge wants to know of an output: its ``type`` if it is no array, else ``shape``, ``dtype`` and the rest."""
        raise NotImplementedError

    def plain(self, output: Any) -> np.ndarray:
        """Its elements as a NumPy array."""
        raise NotImplementedError

    def span(self, output: Any) -> range:
        """Addresses of its elements, on their device."""
        raise NotImplementedError

    def poison(self, size: int) -> None:
        """Fill what the next allocations of so many bytes may be given where the C library's poison does not reach."""

    def measuring(self, threads: int) -> None:
        """Prepare the process for measuring time, with so many threads for products; 0 for the backend's own choice."""

    @staticmethod
    def settings(package: Any) -> Iterator[Setting]:
        """What all code in a process shares of the package, once that is imported."""
        return iter(())

    @staticmethod
    def generators(package: Any) -> Iterator[Generator]:
        """The package's random generators."""
        return iter(())

    @staticmethod
    def watched(package: Any) -> Iterator[tuple[str, type]]:
        """Classes whose functions no call may replace, by where they are found."""
        return iter(())
