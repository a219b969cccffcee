"""Kernels in Triton where Triton's interpreter runs them on the CPU: what they lack there, and what it gets wrong.

A worker on the CPU starts with TRITON_INTERPRET=1. Autotuned kernels still ask the driver of a GPU which one it is and measure their
configurations on it before their first call. Here they are told of one, and take the first configuration that they would measure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

__all__ = ["faults", "prepare_interpreter", "remarks_on"]

# What kernels are told that they run on: a GPU of NVIDIA's (A100) without any feature that only later ones have.
ARCHITECTURE, WARP = 80, 32
PROPERTIES = {"multiprocessor_count": 108, "max_shared_mem": 166912, "warpSize": WARP}

SIDE = 16  # of the smallest matrix product


def _interprets() -> bool:
    if "triton" not in sys.modules:
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def prepare_interpreter() -> None:
    """Put a driver in the place of the one that is not there, if Triton was imported and interprets.

    Not before a module is loaded: some look for a driver when they are imported, and take having none for a machine without GPU.
    """
    if not _interprets():
        return
    from triton.runtime import driver
    from triton.runtime.autotuner import Autotuner

    if isinstance(driver._active, _Driver):
        return
    driver.set_active(_Driver())
    prune = Autotuner.prune_configs
    Autotuner.prune_configs = lambda tuner, kwargs: list(prune(tuner, kwargs))[:1]


@cache
def faults(dtype: str) -> tuple[str, ...]:
    """What Triton's interpreter gets wrong in a dtype of PyTorch, in words, as a small kernel shows."""
    import torch
    import triton
    import triton.language as tl

    @triton.jit
    def probe(x_at, y_at, product_at, stored_at, side: tl.constexpr):
        i = tl.arange(0, side)
        at = i[:, None] * side + i[None, :]
        x = tl.load(x_at + at)
        tl.store(product_at + at, tl.dot(x, x, input_precision="ieee").to(tl.float32))
        tl.store(stored_at + at, tl.load(y_at + at).to(stored_at.dtype.element_ty))

    stored_in = getattr(torch, dtype)
    numbers = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    x, y = (numbers % 7 - 3).to(stored_in), 1 + numbers.float() / (100 * SIDE * SIDE)  # the products are whole numbers; y is nearly 1
    product, stored = torch.empty(SIDE, SIDE), torch.empty(SIDE, SIDE, dtype=stored_in)
    probe[(1,)](x, y, product, stored, SIDE)
    found = []
    if not torch.equal(product, x.float() @ x.float()):
        found.append("multiplies it wrongly (tl.dot)")
    if not torch.equal(stored, y.to(stored_in)):
        found.append("does not round to the nearest when it stores it")
    return tuple(found)


def remarks_on(function: Callable[..., Any]) -> tuple[str, ...]:
    """Sentences on what is not judged of a kernel in Triton that is interpreted; none for a function that is no such kernel."""
    if not _interprets() or not _is_in_triton(sys.modules.get(function.__module__)):
        return ()
    import triton

    version = f"Triton {triton.__version__}"
    wrong = [
        f"in {dtype} the interpreter of {version} {' and '.join(faults(dtype))}: what it refutes there may be right when it is compiled"
        for dtype in ("float16", "bfloat16")
        if faults(dtype)
    ]
    return (f"interpreted by {version}: rounding by matrix units, races and the compiler are not judged", *wrong)


def _is_in_triton(module: ModuleType | None) -> bool:
    """Whether a module, or one of those that its functions are from, imports Triton."""
    if module is None:
        return False
    names = {getattr(value, "__module__", None) for value in vars(module).values()}
    return any(map(_imports_triton, (module, *(sys.modules[name] for name in names if isinstance(name, str) and name in sys.modules))))


def _imports_triton(module: ModuleType) -> bool:
    return any(isinstance(value, ModuleType) and value.__name__.partition(".")[0] == "triton" for value in vars(module).values())


class _Utilities:
    """What the driver tells of a device."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        return PROPERTIES


class _Driver:
    """As `triton.backends.driver.DriverBase`, of a device that nothing runs on."""

    utils = _Utilities()

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", ARCHITECTURE, WARP)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: object = None) -> int:
        return 0

    def set_current_device(self, device: object) -> None:
        pass

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        import torch

        return torch.cpu

    def get_benchmarker(self) -> Callable[..., list[float]]:
        """One that measures nothing: an interpreter's times say nothing of a GPU's."""
        return lambda call, quantiles=(0.5,), **settings: [0.0] * len(quantiles)
