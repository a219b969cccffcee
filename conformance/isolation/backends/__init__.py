"""The backends: whose arrays an implementation takes. Each has one module here, and nothing else knows them by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.errors import UsageError
from conformance.isolation.backends.arrays import MOST_AXES, Arrays, Setting, overlap
from conformance.isolation.backends.jax import JaxArrays
from conformance.isolation.backends.numpy import NumpyArrays
from conformance.isolation.backends.torch import TorchArrays

__all__ = [
    "BACKENDS", "MOST_AXES", "Arrays", "JaxArrays", "NumpyArrays", "Setting", "TorchArrays", "arrays_of", "backend_named", "from_numpy",
    "overlap", "to_numpy",
]  # fmt: skip

BACKENDS: dict[str, type[Arrays]] = {backend.name: backend for backend in (NumpyArrays, TorchArrays, JaxArrays)}


def backend_named(name: str) -> type[Arrays]:
    """The backend of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in BACKENDS:
        raise UsageError(f"backend={name!r}, but should be one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def arrays_of(backend: str, device: str) -> Arrays:
    """The arrays of a backend on a device.

    Raises:
        UsageError: it has no such device, or cannot be imported here.
    """
    return backend_named(backend).on(device)


def from_numpy(backend: str, array: np.ndarray) -> Any:
    """A copy of an array as one of a backend, on the CPU."""
    return arrays_of(backend, "cpu").of(array)


def to_numpy(backend: str, array: Any) -> np.ndarray:
    """The elements of an array of a backend."""
    return arrays_of(backend, "cpu").plain(array)
