"""The conformance suite: fuzzes implementations of attention methods against the oracle and certifies them.

What it offers is imported when it is asked for, so that ``attest --help`` does not wait for NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.errors import UsageError
    from conformance.registry import Implementation, block_sizes, register, split_counts, world_sizes, zigzag_orders

__all__ = ["Implementation", "UsageError", "block_sizes", "register", "split_counts", "world_sizes", "zigzag_orders"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("conformance.errors" if name == "UsageError" else "conformance.registry"), name)
