"""From what a user types to an implementation: registered names, ``module:function`` and ``path/file.py:function``.

Runs in the worker process: the code of an implementation is never imported beside the oracle and the judge.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from conformance.errors import UsageError
from conformance.parameters import fits_by_name, parameters_of
from conformance.registry import Registration, describe, registered
from conformance.serving.driver import is_cache
from oracle import METHODS

__all__ = ["ENTRY_POINT_GROUP", "Problem", "discover", "file_or_module", "lacking", "load", "parts"]

ENTRY_POINT_GROUP = "attest.implementations"


@dataclass(frozen=True)
class Problem:
    """A source of implementations that cannot be loaded here, with the reason."""

    source: str
    reason: str


def discover() -> tuple[list[Registration], list[Problem]]:
    """Everything that installed packages register through the entry point group, and what cannot be loaded.

    An entry point that names an extra, as in ``package.module:__all__ [extra]``, serves code that is not the package's own. Where what
    the extra brings is not installed, that is no problem (`lacking` says what it is); what it registers is optional.
    """
    problems, optional = [], set()
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        if entry.extras:
            optional.add(entry.module)
        try:
            entry.load()
        except (Exception, SystemExit) as error:  # a broken package must not hide the others
            if not (entry.extras and _is_foreign(error, entry)):
                problems.append(Problem(entry.value, _in_short(error)))
    found = [
        replace(one, implementation=replace(one.implementation, optional=one.function.__module__ in optional))
        for one in registered().values()
    ]
    return found, problems


def _is_foreign(error: BaseException, entry: EntryPoint) -> bool:
    """Whether a module is missing that is not of the package that the entry point is of."""
    own = entry.module.partition(".")[0]
    return isinstance(error, ModuleNotFoundError) and (error.name or own).partition(".")[0] != own


def lacking() -> list[Problem]:
    """The extras that entry points name and that are not wholly installed here, by what they lack; nothing is imported."""
    lacks = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        owner = entry.dist
        if owner is None:  # of a finder that tells no distribution
            continue
        for extra in entry.extras:
            missing = [name for name in _required(owner, extra) if not _is_installed(name)]
            if missing:
                wanted = f"{owner.name}[{extra}]"
                lacks[wanted] = Problem(wanted, f"not installed: {', '.join(missing)}")
    return [lacks[wanted] for wanted in sorted(lacks)]


def _required(distribution: Distribution, extra: str) -> list[str]:
    """Names of the distributions that an extra brings, `Requires-Dist: name>=1; extra == "..."`; those for other machines left out."""
    marked = re.compile(rf"""^([A-Za-z0-9._-]+)[^;]*;\s*extra == ['"]{re.escape(extra)}['"]\s*$""")
    return [found[1] for requirement in distribution.requires or () if (found := marked.match(requirement))]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def load(target: str, *, method: str | None = None, backend: str | None = None) -> list[Registration]:
    """The implementations that a target names.

    Args:
        target: a registered name, ``package.module:function``, ``path/file.py:function``, or a module or file that
            registers some.
        method: of a function that is not registered; by default the one whose name or arguments it has.
        backend: of a function that is not registered; by default torch where its module, its own type or what it wraps comes
            from there.

    Raises:
        UsageError: the target cannot be loaded or does not fit; the message says why.
    """
    place, name = parts(target)
    if not (_is_file(place) or name or _is_module(place)):
        return [_registered_as(target)]
    module = file_or_module(place)
    if not name:
        return _registered_in(module, target)
    by_name = registered().get(name)
    if by_name is not None and by_name.function.__module__ == module.__name__ and not hasattr(module, name):
        return [replace(by_name, implementation=replace(by_name.implementation, target=target))]
    function = _attribute(module, name, place)
    for registration in registered().values():
        if registration.function is function:
            return [replace(registration, implementation=replace(registration.implementation, target=target))]
    method = method or _infer_method(function, name, target)
    backend = backend or _infer_backend(function, module)
    implementation = describe(function, method=method, backend=backend, name=target, target=target)
    return [Registration(implementation, function)]


def file_or_module(place: str) -> ModuleType:
    """The module of a path or of a dotted name.

    Raises:
        UsageError: it cannot be imported.
    """
    return _import_file(place) if _is_file(place) else _import_module(place)


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place or "\\" in place


def parts(target: str) -> tuple[str, str]:
    """The place and the name in it, which may be empty; folders with a colon are allowed, and so is a drive."""
    if target and (target.endswith(".py") or ":" not in target):
        return target, ""
    place, _, name = target.rpartition(":")
    if not place or place.endswith(":") or not name or "/" in name or "\\" in name:
        raise _no_target(target)
    return place, name


def _no_target(target: str) -> UsageError:
    return UsageError(f"target={target!r}, but should be a registered name (see 'attest list'), module:function or path/file.py:function")


def _no_file(place: str) -> UsageError:
    found = "is a folder" if Path(place).is_dir() else "is no .py file" if Path(place).exists() else "does not exist"
    return UsageError(f"target file {place!r} {found}, but should be a Python file: path/file.py:function")


def _registered_as(name: str) -> Registration:
    family = name.partition(".")[0]

    def distance(entry: EntryPoint) -> tuple[bool, bool, int]:
        return entry.name.partition(".")[0] != family, not name.startswith(entry.name), -len(entry.name)

    failed = ""
    # Looking one name up need not import every package: entry points named like its beginning, and of the same first word, come first.
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=distance):
        if name in registered():
            break
        if failed and entry.name.partition(".")[0] != family:
            break
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            if entry.name.partition(".")[0] == family:
                wanted = f" (pip install '{entry.dist.name}[{entry.extras[0]}]')" if entry.extras and entry.dist is not None else ""
                failed = failed or f"{entry.value} fails with {_in_short(error)}{wanted}"
    if name in registered():
        return registered()[name]
    if failed:
        raise UsageError(f"{name} cannot be loaded: {failed}")
    raise _no_file(name) if Path(name).exists() else _no_target(name)


def _is_module(place: str) -> bool:
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError, AttributeError):
        return False
    except (Exception, SystemExit):  # of a package on the way there: importing it says what is wrong
        return True
    return found is not None and found.origin is not None  # else any folder is one


def _import_file(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file() or path.suffix != ".py":
        raise _no_file(place)
    # The digest keeps two files of one name apart; the file's folder is importable, as when it is run as a script.
    name = f"attest_target_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        return _guarded(lambda: specification.loader.exec_module(module) or module, place)  # type: ignore[union-attr, func-returns-value]
    except UsageError:
        del sys.modules[name]  # half a module must not stand for the file later
        raise


def _import_module(place: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")
    if not _is_module(place) and Path(place).exists():
        raise _no_file(place)
    return _guarded(lambda: importlib.import_module(place), place)


def _guarded(run: Callable[[], ModuleType], place: str) -> ModuleType:
    try:
        return run()
    except SyntaxError as error:
        where = "" if error.lineno is None else f" in line {error.lineno}"
        raise UsageError(f"{place} has a syntax error{where}: {error.msg}") from None
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{place} cannot be imported: {_in_short(error)}") from None


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def _registered_in(module: ModuleType, target: str) -> list[Registration]:
    found = [r for r in registered().values() if r.function.__module__ == module.__name__]
    if not found:
        raise UsageError(f"{target} registers nothing; name a function, as in {target}:my_kernel")
    # By the name of its variable, unless it has none (made in a loop) or was registered more than once.
    times = Counter(id(r.function) for r in found)
    names = {id(value): key for key, value in vars(module).items() if times[id(value)] == 1}
    return [
        replace(r, implementation=replace(r.implementation, target=f"{target}:{names.get(id(r.function), r.implementation.name)}"))
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
    """What a function is called like; what classes of caches implement; else the first method whose arrays its first parameters
    are named like.
    """
    if name in METHODS:
        return name
    if is_cache(function):
        return next(method for method in METHODS if METHODS[method].subject == "cache")
    parameters = parameters_of(function, target)
    fitting = [method for method in METHODS if fits_by_name(parameters, METHODS[method])]
    if not fitting:
        given = inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters])
        raise UsageError(f"{target} takes {given}, which tells no method, but --method should: one of {', '.join(METHODS)}")
    # One whose options it has too comes before one that its options do not fit.
    fitting = [method for method in fitting if _describes(function, method, target)] or fitting
    return "attention" if "attention" in fitting else fitting[0]


def _describes(function: Callable[..., Any], method: str, target: str) -> bool:
    try:
        describe(function, method=method, backend="numpy", name=target, target=target)
    except UsageError:
        return False
    return True


def _infer_backend(function: Callable[..., Any], module: ModuleType) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    own = sys.modules.get(getattr(function, "__module__", None) or "", module)
    values = [*vars(module).values(), *vars(own).values(), *type(function).__mro__]
    return "torch" if any(_origin(value).partition(".")[0] == "torch" for value in values) else "numpy"


def _origin(value: Any) -> str:
    return value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
