"""The jax backend: arguments are copies of shared memory, as JAX's arrays never change and have no strides.

So memory layouts are not varied, nothing can be written to an argument, and an output that is an argument is no mistake. What a
call can do to an argument is give its memory away, by donation; then the caller's array is gone, which is reported as a change.
A call on float64 arrays runs with 64-bit types enabled, others as the process has it. The precision of products is the kernel's own:
``jax_default_matmul_precision`` stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar

import numpy as np

from conformance.isolation.arena import Arena, ArrayView
from conformance.isolation.backends.arrays import Arrays, Setting, facts_of

__all__ = ["JaxArrays"]

# As JAX calls a kind of device, and as everybody else does.
PLATFORMS = {"gpu": "cuda"}

# What an argument whose memory a call has given away reads as afterwards.
GONE = 0xFF


class JaxArrays(Arrays):
    """How the jax backend takes and gives arrays.

    Args:
        device: where calls run.
    """

    name = "jax"
    title = "JAX"
    packages = ("jax", "jaxlib")
    array = "jax.Array"
    strided = False
    devices = ("cpu", "cuda", "tpu")
    environment: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "cpu": {"JAX_PLATFORMS": "cpu"},
        "cuda": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # else the first worker takes most of the memory from the others
    }
    shared_modules = ("jax", "jax.numpy", "jax.lax", "jax.nn")
    baseline = "jax.standard"

    def __init__(self, device: str) -> None:
        import jax

        super().__init__(device)
        kind, _, index = device.partition(":")
        self.jax = jax
        self._device = jax.devices(kind)[int(index or 0)]
        self._type = type(jax.device_put(np.zeros(1, dtype=np.float32), self._device))
        self._taken: list[tuple[Any, np.ndarray]] = []

    @property
    def device_name(self) -> str:
        """As the device tells it."""
        return "" if self._device.platform == "cpu" else str(self._device.device_kind)

    def take(self, arena: Arena, where: ArrayView) -> Any:
        """A copy of what lies in shared memory, on the device."""
        made = self.of(arena.view(where))
        self._taken.append((made, arena.storage(where)))
        return made

    def of(self, array: np.ndarray) -> Any:
        """A copy of an array as one of JAX: never its memory itself, which JAX would take for constant."""
        return self.jax.device_put(self.jax.numpy.array(array, copy=True), self._device)

    def calling(self, function: Callable[..., Any], dtypes: Collection[str]) -> AbstractContextManager[object]:
        """64-bit types for float64, which they would else be cut to float32; and new arrays on the device."""
        self._taken.clear()
        stack = ExitStack()
        if "float64" in dtypes:
            stack.enter_context(self.jax.enable_x64(True))
        stack.enter_context(self.jax.default_device(self._device))
        return stack

    def finish(self, result: Any) -> None:
        """Wait for a result: calls only start to compute it."""
        self.jax.block_until_ready(result)

    def copy_back(self) -> list[range]:
        """Mark arguments that a call gave away; none of them lies at addresses that an output could alias."""
        for made, storage in self._taken:
            if made.is_deleted():
                storage.view(np.uint8)[...] = GONE
        self._taken.clear()
        return []

    def number(self, output: Any) -> Any:
        """An integer, where an output is a single number, as an array without axes."""
        return self.of(np.asarray(output)) if type(output) is int and abs(output) < 2**63 else output

    def facts(self, output: Any) -> dict[str, Any]:
        """What the judge wants to know of an output: its ``type`` if it is no array, else ``shape``, ``dtype`` and the device."""
        if type(output) is not self._type:  # a tracer that has leaked out of a trace is a jax.Array too
            return {"type": f"{type(output).__module__}.{type(output).__qualname__}"}
        platforms = sorted({PLATFORMS.get(device.platform, device.platform) for device in output.devices()})
        return {**facts_of(self.array, output.dtype.name, tuple(output.shape)), "device": " and ".join(platforms)}

    def plain(self, output: Any) -> np.ndarray:
        """Its elements as a NumPy array."""
        return np.asarray(output)

    def span(self, output: Any) -> range:
        """No addresses: arrays that never change may share them."""
        return range(0)

    @staticmethod
    def settings(package: Any) -> Iterator[Setting]:
        """JAX's configuration, which its functions read and which decides what has to be compiled again."""
        config = package.config
        yield Setting("the JAX setting", lambda: dict(config.values), lambda before: _restore(config, before))


def _restore(config: Any, before: dict[str, Any]) -> None:
    for name, value in before.items():
        if config.values[name] != value:
            config.update(name, value)
