"""What can run on this machine, and why the rest cannot: ``attest doctor``."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conformance.certify import Request, implementations
from conformance.errors import UsageError
from conformance.isolation.sandbox import Sandbox
from conformance.loading import lacking
from conformance.settings import project_settings

__all__ = ["Check", "examine"]

# What each package is for, in the order of the list.
PACKAGES = {
    "numpy": "oracle, judge and the numpy backend",
    "ml_dtypes": "bfloat16 arrays in NumPy",
    "torch": "the torch backend: pip install 'attest-attention[torch]'",
    "python-flint": "rigorous enclosures (tests only): pip install 'attest-attention[enclosure]'",
    "pytest": "the plugin: pip install pytest",
}
OPTIONAL = ("torch", "python-flint", "pytest")


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: of what was looked at.
        works: whether it can be used; None for what may be missing.
        says: its version or what it found, or why it cannot be used.
    """

    name: str
    works: bool | None
    says: str


def examine() -> Iterator[Check]:
    """Look at one thing after another: the interpreter, packages, devices, the worker process, settings, implementations."""
    yield Check("python", sys.version_info >= (3, 11), f"{sys.version.split()[0]} on {platform.platform()}, {os.cpu_count()} processors")
    for package, purpose in PACKAGES.items():
        try:
            yield Check(package, True, version(package))
        except PackageNotFoundError:
            yield Check(package, None if package in OPTIONAL else False, f"not installed; it serves {purpose}")
    for device in ("cpu", "cuda"):
        yield _device(device)
    yield _settings()
    yield from _implementations()


def nothing(q: Any, k: Any, v: Any) -> Any:
    """A function that the worker can load as a kernel of any backend; it is never called."""


def _device(device: str) -> Check:
    """Whether the torch backend can run on a device: the worker is asked, as PyTorch is never imported here."""
    name = f"torch on {device}"
    try:
        with Sandbox(device=device) as sandbox:
            sandbox.load(f"{__name__}:{nothing.__name__}", method="attention", backend="torch")
    except UsageError as error:
        return Check(name, None, str(error))
    return Check(name, True, "can be used")


def _settings() -> Check:
    try:
        found = project_settings()
    except UsageError as error:
        return Check("settings", False, str(error))
    return Check("settings", True, ", ".join(f"{name}={value}" for name, value in found.items()) or "the defaults")


def _implementations() -> Iterator[Check]:
    try:
        found, problems = implementations(Request())
    except UsageError as error:
        yield Check("worker", False, str(error))
        return
    yield Check("worker", True, "starts, and loads what is registered")
    for backend in sorted({implementation.backend for implementation in found}):
        own = [implementation for implementation in found if implementation.backend == backend]
        yield Check(f"{backend} implementations", True, f"{len(own)} of {len({one.method for one in own})} methods")
    for source, reason in problems:
        yield Check(source, None, f"cannot be loaded: {reason}")
    for lack in lacking():
        yield Check(lack.source, None, lack.reason)
