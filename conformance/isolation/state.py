"""State of a process that all code in it shares, and which a call must therefore leave as it was.

Looked at before and after each call; what a call changed is named and set back, so that the next call meets what this one
met. Random generators may be drawn from but not seeded: they start each call from a state of their own, and a call that
seeds one leaves it where the call before left it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import locale
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from conformance.isolation.backends import BACKENDS, Arrays
from conformance.isolation.backends.arrays import Generator, Setting

__all__ = ["OWN_PACKAGES", "SharedState"]

SMALLEST, NEARLY_NOTHING = 5e-324, 2.0**-60
FE_DFL_ENV = -1  # <fenv.h>, the same on every platform that glibc and Apple's library serve

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGFPE", "SIGHUP", "SIGINT", "SIGPIPE", "SIGPROF", "SIGSEGV", "SIGTERM",
                 "SIGUSR1", "SIGUSR2", "SIGVTALRM")
    if hasattr(signal, name)
)  # fmt: skip

# Replacing a function in one of these changes what others compute, or what the worker reports.
SHARED_MODULES = {"builtins", "json", "math", "pickle", *(name for backend in BACKENDS.values() for name in backend.shared_modules)}
OWN_PACKAGES = ("conformance", "oracle")

LONGEST = 60

Packages = list[tuple[type[Arrays], Any]]


def _imported() -> Packages:
    """The backends whose packages this process has imported."""
    return [(backend, package) for backend in BACKENDS.values() if (package := sys.modules.get(backend.packages[0])) is not None]


class SharedState:
    """The shared state of this process as it is now, to compare later states with.

    Args:
        decoy: a file that no call has any business with.
    """

    def __init__(self, decoy: Path | None = None) -> None:
        packages = _imported()
        of_packages = [setting for backend, package in packages for setting in backend.settings(package)]
        self._settings = [*_of_python(), *of_packages, *(_of_file(decoy) if decoy else ())]
        self._before = [_read(setting) for setting in self._settings]
        self._functions = {place: (owner, _functions_of(owner)) for place, owner in _owners(packages)}
        self._generators = dict(_generators(packages))
        self._left: dict[str, Any] = {}
        self._calls, self._modules = 0, len(sys.modules)

    def begin_call(self) -> None:
        """Start random generators from a state that no earlier call began with."""
        self._calls += 1
        for seed, _ in self._generators.values():
            seed(self._calls)

    def end_call(self) -> list[str]:
        """What the call changed, a phrase each; it is set back."""
        changes = []
        has_loaded, self._modules = len(sys.modules) > self._modules, len(sys.modules)
        for index, (setting, before) in enumerate(zip(self._settings, self._before, strict=True)):
            now = _read(setting)
            if now == before:
                continue
            if has_loaded and setting.loading:
                self._before[index] = now
                continue
            changes += _phrases(setting.name, before, now)
            with contextlib.suppress(Exception):
                setting.write(before)
        left = {name: state() for name, (_, state) in self._generators.items()}
        changes += [f"the seed of {name}" for name, state in left.items() if self._left.get(name) == state]
        self._left = left
        return changes

    def replaced_functions(self, packages: tuple[str, ...] = ()) -> list[str]:
        """Functions of shared modules that are not what they were, a phrase each; they are set back.

        Args:
            packages: to look in; all that are watched by default.
        """
        changes = []
        for place, (owner, functions) in self._functions.items():
            if packages and place.partition(".")[0] not in packages:
                continue
            now = vars(owner)
            for name, function in functions.items():
                if now.get(name) is function:
                    continue
                if _wraps(now.get(name), function, place.partition(".")[0]):
                    functions[name] = now[name]
                else:
                    changes.append(f"the function {place}.{name}")
                    setattr(owner, name, function)
        return changes


def _wraps(found: Any, function: Any, package: str) -> bool:
    """Whether a package has wrapped its own function, as torch._dynamo does with `torch.manual_seed` when it is first needed."""
    if not isinstance(found, FunctionType) or vars(found).get("__wrapped__") is not function:
        return False
    return str(found.__globals__.get("__name__")).partition(".")[0] == package


def _read(setting: Setting) -> Any:
    try:
        return setting.read()
    except Exception as error:  # what cannot be read any more has changed
        return type(error).__name__


def _phrases(name: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        parts = sorted(key for key in {**before, **now} if before.get(key) != now.get(key))
        return [f"{name} {key} from {_show(before.get(key))} to {_show(now.get(key))}" for key in parts]
    return [f"{name} from {_show(before)} to {_show(now)}"]


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _of_python() -> Iterator[Setting]:
    yield Setting("the working directory", os.getcwd, _change_directory)
    yield Setting("the environment variable", _environment, _set_environment, loading=True)
    yield Setting("sys.path", lambda: list(sys.path), lambda value: sys.path.__setitem__(slice(None), value), loading=True)
    yield Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, loading=True)
    yield Setting("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value))
    yield Setting("the trace function", sys.gettrace, sys.settrace)
    yield Setting("the profile function", sys.getprofile, sys.setprofile)
    yield Setting("the handler of", lambda: {s.name: signal.getsignal(s) for s in SIGNALS}, _set_handlers)
    timer = signal.ITIMER_REAL
    yield Setting("the interval timer", lambda: signal.getitimer(timer)[0] > 0, lambda _: signal.setitimer(timer, 0))
    yield Setting("garbage collection", gc.isenabled, lambda value: gc.enable() if value else gc.disable())
    yield Setting("sys.stdout", lambda: sys.stdout, lambda value: setattr(sys, "stdout", value))
    yield Setting("sys.stderr", lambda: sys.stderr, lambda value: setattr(sys, "stderr", value))
    yield Setting("the warnings that raise", _raising_warnings, _set_raising_warnings)
    yield Setting("the processor's", _floating_point_mode, lambda _: ctypes.CDLL(None).fesetenv(ctypes.c_void_p(FE_DFL_ENV)))


def _change_directory(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    os.chdir(path)


def _environment() -> dict[str, str]:
    return dict(os.environ)


def _set_environment(before: dict[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _set_handlers(before: dict[str, Any]) -> None:
    for name, handler in before.items():
        if handler is not None and signal.getsignal(number := signal.Signals[name]) != handler:
            signal.signal(number, handler)


def _raising_warnings() -> list[Any]:
    return [entry for entry in warnings.filters if entry[0] == "error"]


def _set_raising_warnings(before: list[Any]) -> None:
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters[:] = [entry for entry in filters if entry[0] != "error" or entry in before]


def _floating_point_mode() -> dict[str, bool]:
    """Seen in what arithmetic does: there is no portable way to ask."""
    one = float(len("1"))  # not a constant, which the compiler would fold
    return {
        "flushing of subnormal numbers": SMALLEST * one == 0,
        "rounding upwards": one + NEARLY_NOTHING > one,
        "rounding downwards": one - NEARLY_NOTHING < one,
    }


def _of_file(decoy: Path) -> Iterator[Setting]:
    contents = decoy.read_bytes()
    yield Setting(
        f"the file {decoy.name} in the working directory",
        lambda: "intact" if decoy.read_bytes() == contents else "changed",
        lambda _: decoy.write_bytes(contents),
    )


def _generators(packages: Packages) -> Iterator[Generator]:
    """By name: how the process's random generators are seeded, and their states."""
    yield "random", (random.seed, random.getstate)
    for backend, package in packages:
        yield from backend.generators(package)


def _owners(packages: Packages) -> Iterator[tuple[str, ModuleType | type]]:
    """Modules and classes whose functions are watched, by where they are found."""
    for name, module in list(sys.modules.items()):
        own = name.partition(".")[0] in OWN_PACKAGES
        if own or name in SHARED_MODULES:
            yield name, module
        if own:
            classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]
            yield from ((f"{name}.{found.__name__}", found) for found in classes)
    for backend, package in packages:
        yield from backend.watched(package)


def _functions_of(owner: ModuleType | type) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if callable(value)}
