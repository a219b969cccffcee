"""How a backend takes arguments from shared memory and gives outputs as plain data. Runs in the worker.

An output is read only when it is exactly an array of the backend, and described before it is read: one of a wrong shape
may be of any size, and one of a foreign type may do anything when it is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from conformance.errors import UsageError
from conformance.isolation.arena import Arena, ArrayView, dtype_named
from oracle.codes import CODE_FORMATS
from oracle.formats import FORMATS

__all__ = ["MOST_AXES", "NumpyArrays", "TorchArrays", "arrays_of", "from_numpy", "overlap", "to_numpy"]

# NumPy has no arrays of more; PyTorch has.
MOST_AXES = 64

# Dtypes that PyTorch has, and NumPy only from ml_dtypes.
FOREIGN = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")

# Fresh memory is filled with this byte: a huge number (NaN in float16) wherever a kernel never wrote.
POISON = 0x7F

# NumPy keeps freed blocks up to this size for itself, in lists of up to 7, out of the reach of the C library's poison.
NUMPY_KEEPS_BELOW = 1024
NUMPY_KEEPS = 7


def overlap(first: range, second: range) -> bool:
    """Whether two ranges of addresses have one in common."""
    return max(first.start, second.start) < min(first.stop, second.stop)


def _span(address: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> range:
    """Addresses of an array's elements, strides in bytes; empty if it has none."""
    if 0 in shape:
        return range(0)
    reach = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    return range(address + sum(min(step, 0) for step in reach), address + sum(max(step, 0) for step in reach) + itemsize)


def _facts(kind: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"type": f"{kind} with {len(shape)} axes"} if len(shape) > MOST_AXES else {"dtype": dtype, "shape": list(shape)}


class NumpyArrays:
    """How the numpy backend takes and gives arrays."""

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A view of shared memory as this backend's array."""
        return arena.view(where)

    def calling(self, function: Callable[..., Any]) -> AbstractContextManager[object]:
        """What a call runs under."""
        return nullcontext()

    def copy_back(self) -> list[range]:
        """Bring what the arguments have become back into shared memory; the addresses where they lay outside of it."""
        return []

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
        return _facts("numpy.ndarray", output.dtype.name, output.shape)

    def plain(self, output: Any) -> np.ndarray:
        """Its elements as a NumPy array."""
        return output

    def span(self, output: Any) -> range:
        """Addresses of its elements."""
        return _span(output.__array_interface__["data"][0], output.shape, output.strides, output.itemsize)

    def poison(self, size: int) -> None:
        """Fill what the next allocations of so many bytes may be given where the C library's poison does not reach."""
        if 0 < size < NUMPY_KEEPS_BELOW:
            blocks = [np.empty(size, dtype=np.uint8) for _ in range(NUMPY_KEEPS)]
            for block in blocks:
                block.fill(POISON)


class TorchArrays:
    """How the torch backend takes and gives arrays.

    Args:
        device: where calls run.
        shared: whether arguments stay in shared memory rather than in copies; by default on the CPU alone.
    """

    def __init__(self, device: str, *, shared: bool | None = None) -> None:
        import torch

        self.torch, self.device = torch, device
        self.shared = device == "cpu" if shared is None else shared
        self._moved: list[tuple[Any, Any]] = []

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A tensor on shared memory, with its storage offset; or on a copy of its storage, gaps included, on the device."""
        torch, storage = self.torch, arena.storage(where)
        if where.dtype in FOREIGN:  # which torch cannot take from NumPy
            flat = torch.from_numpy(storage.view(f"int{8 * storage.itemsize}")).view(getattr(torch, where.dtype))
        else:
            flat = torch.from_numpy(storage)
        if not self.shared:
            moved = flat.to(self.device, copy=True)
            self._moved.append((moved, flat))
            flat = moved
        size = storage.itemsize
        return flat.as_strided(where.shape, [stride // size for stride in where.strides], (where.offset - where.start) // size)

    def calling(self, function: Callable[..., Any]) -> AbstractContextManager[object]:
        """What a call runs under: a module has parameters, which make a graph of every call outside of training."""
        return self.torch.no_grad() if isinstance(function, self.torch.nn.Module) else nullcontext()

    def copy_back(self) -> list[range]:
        """Bring what the arguments have become back into shared memory; the addresses where they lay outside of it."""
        for moved, flat in self._moved:
            flat.copy_(moved)
        spans = [self.span(moved) for moved, _ in self._moved]
        self._moved.clear()
        return spans

    def number(self, output: Any) -> Any:
        """An integer, where an output is a single number, as a tensor without axes."""
        return self.torch.tensor(output, device=self.device) if type(output) is int and abs(output) < 2**63 else output

    def facts(self, output: Any) -> dict[str, Any]:
        """What the judge wants to know of an output: its ``type`` if it is no array, else ``shape``, ``dtype`` and the rest."""
        if type(output) is not self.torch.Tensor:
            return {"type": f"{type(output).__module__}.{type(output).__qualname__}"}
        if output.layout is not self.torch.strided or output.is_nested:
            return {"type": f"torch.Tensor with layout {'nested' if output.is_nested else output.layout}"}
        bare = self.torch.Tensor.detach(output)  # without attributes of its own, which could stand before methods
        facts = _facts("torch.Tensor", str(bare.dtype).removeprefix("torch."), tuple(bare.shape))
        return {**facts, "device": bare.device.type, "requires_grad": output.requires_grad}

    def plain(self, output: Any) -> np.ndarray:
        """Its elements as a NumPy array."""
        plain = self.torch.Tensor.detach(output).cpu().contiguous()
        name = str(plain.dtype).removeprefix("torch.")
        if name in FOREIGN:
            bits = self.torch.int16 if plain.element_size() == 2 else self.torch.int8  # as one-byte types have no NumPy twin
            return plain.view(bits).numpy().view(dtype_named(name))
        return plain.numpy()

    def span(self, output: Any) -> range:
        """Addresses of its elements, on their device."""
        bare = self.torch.Tensor.detach(output)
        size = bare.element_size()
        return _span(bare.data_ptr(), tuple(bare.shape), tuple(stride * size for stride in bare.stride()), size)

    def poison(self, size: int) -> None:
        """Fill what the next allocation of so many bytes may be given where the C library's poison does not reach."""
        if not self.shared and size:
            self.torch.empty(size, dtype=self.torch.uint8, device=self.device).fill_(POISON)


def arrays_of(backend: str, device: str) -> NumpyArrays | TorchArrays:
    """The arrays of a backend on a device.

    Raises:
        UsageError: it has no such device, or cannot be imported here.
    """
    if backend == "numpy":
        if device != "cpu":
            raise UsageError(f"device={device!r}, but should be 'cpu' for the backend numpy")
        return NumpyArrays()
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"backend='torch' needs PyTorch, which cannot be imported here ({error}): pip install 'attest-attention[torch]'"
        ) from None
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device={device!r} cannot be used here, but should be a device that PyTorch has ({reason})") from None
    return TorchArrays(device)


def from_numpy(backend: str, array: np.ndarray) -> Any:
    """A copy of an array as one of a backend, on the CPU."""
    if backend == "numpy":
        return array.copy()
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_numpy(backend: str, array: Any) -> np.ndarray:
    """The elements of an array of a backend."""
    return arrays_of(backend, "cpu").plain(array)
