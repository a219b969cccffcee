"""What kernels in Triton lack where Triton's interpreter runs them on the CPU: a device to ask about, and a choice of configuration.

A worker on the CPU starts with TRITON_INTERPRET=1. Autotuned kernels still ask the driver of a GPU which one it is and measure their
configurations on it before their first call. Here they are told of one, and take the first configuration that they would measure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["prepare_interpreter"]

# What kernels are told that they run on: a GPU of NVIDIA's (A100) without any feature that only later ones have.
ARCHITECTURE, WARP = 80, 32
PROPERTIES = {"multiprocessor_count": 108, "max_shared_mem": 166912, "warpSize": WARP}


def prepare_interpreter() -> None:
    """Put a driver in the place of the one that is not there, if Triton was imported and interprets.

    Not before a module is loaded: some look for a driver when they are imported, and take having none for a machine without GPU.
    """
    if "triton" not in sys.modules:
        return
    import triton
    from triton.runtime import driver
    from triton.runtime.autotuner import Autotuner

    if not triton.knobs.runtime.interpret or isinstance(driver._active, _Driver):
        return
    driver.set_active(_Driver())
    prune = Autotuner.prune_configs
    Autotuner.prune_configs = lambda tuner, kwargs: list(prune(tuner, kwargs))[:1]


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
