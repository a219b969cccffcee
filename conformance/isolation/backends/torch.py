"""The torch backend: arguments are tensors on shared memory, or on copies of it on another device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import numpy as np

from conformance.isolation.arena import Arena, ArrayView, dtype_named
from conformance.isolation.backends.arrays import POISON, Arrays, Generator, Setting, facts_of, span_of
from conformance.isolation.triton_interpreter import prepare_interpreter, remarks_on

__all__ = ["TorchArrays"]

# Dtypes that PyTorch has, and NumPy only from ml_dtypes.
FOREIGN = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")


class TorchArrays(Arrays):
    """How the torch backend takes and gives arrays.

    Args:
        device: where calls run.
        shared: whether arguments stay in shared memory rather than in copies; by default on the CPU alone.
    """

    name = "torch"
    title = "PyTorch"
    packages = ("torch",)
    preloaded = ("torch",)
    array = "torch.Tensor"
    devices = ("cpu", "cuda", "mps", "xpu")
    # Triton has no compiler for the CPU, and asks only once.
    environment: ClassVar[Mapping[str, Mapping[str, str]]] = {"cpu": {"TRITON_INTERPRET": "1"}}
    shared_modules = ("torch", "torch.linalg", "torch.nn.functional")
    baseline = "torch.standard"

    def __init__(self, device: str, *, shared: bool | None = None) -> None:
        import torch

        super().__init__(device)
        torch.empty(1, device=device)  # raises where there is no such device
        self.torch = torch
        self.shared = device == "cpu" if shared is None else shared
        self._moved: list[tuple[Any, Any]] = []

    @property
    def device_name(self) -> str:
        """As the driver tells it; the other kinds of devices have no names."""
        return str(self.torch.cuda.get_device_name(self.device)) if self.device.partition(":")[0] == "cuda" else ""

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A tensor on shared memory, with its storage offset; or on a copy of its storage, gaps included, on the device."""
        return self.maker(arena, where)()

    def blank(self) -> Any:
        """A tensor without elements."""
        return self.torch.empty(0)

    def maker(self, arena: Arena, where: ArrayView) -> Callable[[], Any]:
        """What makes one tensor after the other on the same memory."""
        flat = self._tensor(arena.storage(where))
        if not self.shared:
            moved = flat.to(self.device, copy=True)
            self._moved.append((moved, flat))
            flat = moved
        size = flat.element_size()
        strides, offset = [stride // size for stride in where.strides], (where.offset - where.start) // size
        return partial(flat.as_strided, where.shape, strides, offset)

    def _tensor(self, array: np.ndarray) -> Any:
        """A tensor on the memory of an array."""
        if array.dtype.name in FOREIGN:  # which torch cannot take from NumPy
            return self.torch.from_numpy(array.view(f"int{8 * array.itemsize}")).view(getattr(self.torch, array.dtype.name))
        return self.torch.from_numpy(array)

    def of(self, array: np.ndarray) -> Any:
        """A copy of an array as a tensor on the device."""
        return self._tensor(array.copy()).to(self.device)

    def loaded(self, function: Callable[..., Any]) -> tuple[str, ...]:
        """Prepare Triton's interpreter, where it is in use."""
        prepare_interpreter()
        return remarks_on(function)

    def calling(self, function: Callable[..., Any], dtypes: Collection[str]) -> AbstractContextManager[object]:
        """A module has parameters, which make a graph of every call outside of training."""
        return self.torch.no_grad() if isinstance(function, self.torch.nn.Module) else nullcontext()

    def finish(self, result: Any) -> None:
        """Wait for the device, so that what goes wrong there is raised by the call that it went wrong in."""
        if self.device.partition(":")[0] == "cuda":
            self.torch.cuda.synchronize(self.device)

    def lost(self) -> bool:
        """After a fault in a kernel, such as an illegal address, CUDA refuses whatever the process asks of it."""
        try:
            self.finish(None)
        except RuntimeError:
            return True
        return False

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
        facts = facts_of("torch.Tensor", str(bare.dtype).removeprefix("torch."), tuple(bare.shape))
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
        return span_of(bare.data_ptr(), tuple(bare.shape), tuple(stride * size for stride in bare.stride()), size)

    def poison(self, size: int) -> None:
        """Fill what the next allocation of so many bytes may be given where the C library's poison does not reach."""
        if not self.shared and size:
            self.torch.empty(size, dtype=self.torch.uint8, device=self.device).fill_(POISON)

    def measuring(self, threads: int) -> None:
        """No graphs, and so many threads."""
        self.torch.set_grad_enabled(False)
        if threads:
            self.torch.set_num_threads(threads)

    @staticmethod
    def settings(package: Any) -> Iterator[Setting]:
        """What all code in a process shares of PyTorch."""
        torch = package
        yield Setting("PyTorch's default dtype", torch.get_default_dtype, torch.set_default_dtype)
        yield Setting("PyTorch's default device", torch.get_default_device, lambda value: torch.set_default_device(_unless_cpu(value)))
        yield Setting("PyTorch's number of threads", torch.get_num_threads, torch.set_num_threads)
        yield Setting("PyTorch's deterministic mode", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode)
        yield Setting("PyTorch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled)
        yield Setting("PyTorch's anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly)
        yield Setting("PyTorch's float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
        for kind in ("cpu", "cuda"):
            reads, writes = partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)
            yield Setting(f"PyTorch's autocast on {kind}", reads, writes)
        flags = torch.backends.cuda
        for name in ("flash", "mem_efficient", "math", "cudnn"):
            yield Setting(f"PyTorch's {name} attention", getattr(flags, f"{name}_sdp_enabled"), getattr(flags, f"enable_{name}_sdp"))
        for name in ("benchmark", "deterministic"):
            cudnn = torch.backends.cudnn
            yield Setting(f"torch.backends.cudnn.{name}", partial(getattr, cudnn, name), partial(setattr, cudnn, name))

    @staticmethod
    def generators(package: Any) -> Iterator[Generator]:
        """PyTorch's own, and the one of the GPU that is in use."""
        torch = package
        yield "PyTorch", (torch.default_generator.manual_seed, lambda: torch.default_generator.get_state().numpy().tobytes())
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            yield "PyTorch on CUDA", (torch.cuda.manual_seed, lambda: torch.cuda.get_rng_state().numpy().tobytes())

    @staticmethod
    def watched(package: Any) -> Iterator[tuple[str, type]]:
        """The class of tensors."""
        yield "torch.Tensor", package.Tensor


def _unless_cpu(device: Any) -> Any:
    return None if device.type == "cpu" else device
