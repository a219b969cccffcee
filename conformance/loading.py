"""From what a user types to an implementation: registered names, ``module:function`` and ``path/file.py:function``.

Runs in the worker process: the code of an implementation is never imported beside the oracle and the judge.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from conformance.errors import UsageError
from conformance.registry import Registration, describe, registered
from oracle import METHODS

__all__ = ["ENTRY_POINT_GROUP", "Problem", "discover", "load"]

ENTRY_POINT_GROUP = "attest.implementations"


@dataclass(frozen=True)
class Problem:
    """A source of implementations that cannot be loaded here, with the reason."""

    source: str
    reason: str


def discover() -> tuple[list[Registration], list[Problem]]:
    """Everything that installed packages register through the entry point group."""
    problems = []
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            entry.load()
        except Exception as error:  # a broken package must not hide the others
            problems.append(Problem(entry.value, f"{type(error).__name__}: {error}"))
    return list(registered().values()), problems


def load(target: str, *, method: str | None = None, backend: str | None = None) -> list[Registration]:
    """The implementations that a target names.

    Args:
        target: a registered name, ``package.module:function``, ``path/file.py:function``, or a module or file that
            registers some.
        method: of a function that is not registered; by default the one whose name or arguments it has.
        backend: of a function that is not registered; by default the one that its module imports.

    Raises:
        UsageError: the target cannot be loaded or does not fit; the message says why.
    """
    place, _, name = target.partition(":")
    if place.endswith(".py"):
        module = _import_file(place)
    elif name or _is_module(place):
        module = _import_module(place)
    else:
        return [_registered_as(target)]
    if not name:
        return _registered_in(module, target)
    function = _attribute(module, name, place)
    for registration in registered().values():
        if registration.function is function:
            return [replace(registration, implementation=replace(registration.implementation, target=target))]
    method = method or _infer_method(function, name, target)
    implementation = describe(function, method=method, backend=backend or _infer_backend(module), name=target, target=target)
    return [Registration(implementation, function)]


def _registered_as(name: str) -> Registration:
    family = name.partition(".")[0]
    # Looking one name up need not import every package: entry points of the same first word come first.
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name.partition(".")[0] != family):
        if name in registered():
            break
        try:
            entry.load()
        except Exception as error:
            if entry.name.partition(".")[0] == family:
                raise UsageError(f"{name} cannot be loaded: {entry.value} fails with {type(error).__name__}: {error}") from None
    if name not in registered():
        raise UsageError(f"target={name!r}, but should be a registered name (see 'attest list'), module:function or path/file.py:function")
    return registered()[name]


def _is_module(place: str) -> bool:
    try:
        return importlib.util.find_spec(place) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _import_file(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        raise UsageError(f"target file {place!r} does not exist")
    # The digest keeps two files of one name apart; the file's folder is importable, as when it is run as a script.
    name = f"attest_target_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    return _guarded(lambda: specification.loader.exec_module(module) or module, place)  # type: ignore[union-attr, func-returns-value]


def _import_module(place: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    return _guarded(lambda: importlib.import_module(place), place)


def _guarded(run: Callable[[], ModuleType], place: str) -> ModuleType:
    try:
        return run()
    except SyntaxError as error:
        raise UsageError(f"{place} has a syntax error in line {error.lineno}: {error.msg}") from None
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{place} cannot be imported: {type(error).__name__}: {error}") from None


def _registered_in(module: ModuleType, target: str) -> list[Registration]:
    found = [r for r in registered().values() if r.function.__module__ == module.__name__]
    if not found:
        raise UsageError(f"{target} registers nothing; name a function, as in {target}:my_kernel")
    names = {id(value): key for key, value in vars(module).items()}
    return [
        replace(r, implementation=replace(r.implementation, target=f"{target}:{names.get(id(r.function), r.function.__qualname__)}"))
        for r in found
    ]


def _attribute(module: ModuleType, name: str, place: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            own = [key for key, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == module.__name__]
            raise UsageError(f"{place} has no {name!r}; it has {', '.join(own) or 'no function'}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{place}:{name} is {type(found).__name__}, but should be a function")
    return found  # type: ignore[no-any-return]


def _infer_method(function: Callable[..., Any], name: str, target: str) -> str:
    """A function called like a method is that method; else the first method whose arguments it takes."""
    if name in METHODS:
        return name
    fitting = []
    for method in METHODS:
        try:
            implementation = describe(function, method=method, backend="numpy", name=target, target=target)
        except UsageError:
            continue
        parameters = list(function.__code__.co_varnames) if hasattr(function, "__code__") else []
        if parameters[: len(METHODS[method].signature.required)] == [spec.name for spec in METHODS[method].signature.required]:
            fitting.append(implementation.method)
    if not fitting:
        raise UsageError(f"{target} fits no method by its parameters; name one with --method ({', '.join(METHODS)})")
    return "attention" if "attention" in fitting else fitting[0]


def _infer_backend(module: ModuleType) -> str:
    imported = {getattr(value, "__name__", "").partition(".")[0] for value in vars(module).values() if isinstance(value, ModuleType)}
    return "torch" if "torch" in imported else "numpy"
