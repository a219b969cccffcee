"""The process in which an implementation runs, started by `conformance.isolation.sandbox`.

It speaks JSON over a socket, a line each way, and shares arrays through the arena, so whatever the implementation does to
this process, the judge receives plain data. It decides nothing: it reports what came back.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.cases.options import as_argument
from conformance.errors import DriverError, UsageError
from conformance.isolation.arena import Arena, ArrayView
from conformance.isolation.backends import Arrays, NumpyArrays, arrays_of, overlap
from conformance.isolation.identities import Identities
from conformance.isolation.state import OWN_PACKAGES, SharedState
from conformance.loading import discover, load
from conformance.methods import load_installed, resolve_method
from conformance.parallel.driver import RankDriver
from conformance.registry import Registration

__all__ = ["CONNECTION_LOST", "DECOY", "Worker", "main", "silence"]

CONNECTION_LOST = 113
"""Exit status of a worker that cannot reach the judge any more."""

DECOY = "attest.txt"
"""Lies in the folder in which calls run; a call that deletes or changes files there shows it."""

DECOY_CONTENTS = "The working directory of a worker of attest. It is removed when the worker ends.\n"

LONGEST_MESSAGE, LAST_FRAMES = 2000, 6

# Outputs of so many earlier calls, up to this size each, are looked at again after later ones.
REMEMBERED, LARGEST_REMEMBERED = 8, 1 << 18


@dataclass
class _Given:
    """An output that a call gave: itself, where its elements lie, and what they were."""

    output: Any
    addresses: range
    elements: np.ndarray


class Worker:
    """Answers the judge's requests.

    Args:
        connection: to the judge; None in the judge's own process.
        arena: memory shared with the judge.
        folder: an empty one in which calls run; None to stay where the process is.
    """

    def __init__(self, connection: socket.socket | None, arena: Arena, folder: Path | None = None) -> None:
        self.connection, self.arena, self.folder = connection, arena, folder
        self.home, self.process = os.getcwd(), os.getpid()
        self.registration: Registration | None = None
        self.function: Callable[..., Any] | None = None
        self.arrays: Arrays = NumpyArrays()
        self.state = SharedState()
        self._alone = connection is not None  # else the judge shares the process, and changes its state as it likes
        self._running = 0
        self._remembered: deque[_Given] = deque(maxlen=REMEMBERED)
        self._identities = Identities()
        # In a process of its own nothing that a kernel raises is meant for us, be it KeyboardInterrupt.
        self._caught: tuple[type[BaseException], ...] = (BaseException,) if connection else (Exception, SystemExit)

    def serve(self) -> None:
        """Answer until the judge hangs up."""
        assert self.connection is not None, "only a worker process serves"
        try:
            for line in self.connection.makefile("rb"):
                request = json.loads(line)
                reply = {"token": request["token"], **self.answer(request)}
                self.connection.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            os._exit(CONNECTION_LOST)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "discover": self.discover, "load": self.load, "call": self.call,
        }  # fmt: skip
        try:
            return answers[request["do"]](request)
        except UsageError as error:
            return {"usage_error": str(error)}

    def discover(self, request: dict[str, Any]) -> dict[str, Any]:
        """Everything registered through entry points."""
        load_installed()
        found, problems = discover()
        return {
            "implementations": [registration.implementation.to_json() for registration in found],
            "problems": [[problem.source, problem.reason] for problem in problems],
        }

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load a target, in the folder where attest was started; keep the last implementation for calls."""
        if self.folder is not None:
            os.chdir(self.home)
        try:
            load_installed()
            for method in request.get("methods", ()):
                resolve_method(method)
            found = load(request["target"], method=request.get("method"), backend=request.get("backend"))
            described = json.loads(json.dumps([registration.implementation.to_json() for registration in found]))
        except UsageError:
            raise
        except self._caught as error:
            exception = _described(error)
            raise UsageError(f"{request['target']} cannot be loaded: {exception['exception']}: {exception['message']}") from None
        if replaced := self.state.replaced_functions(OWN_PACKAGES):
            raise UsageError(f"{request['target']} replaces {', '.join(replaced)} when it is loaded, but should leave attest alone")
        self.registration = found[-1]
        self.function = self.registration.callable
        self.arrays = arrays_of(self.registration.implementation.backend, request.get("device") or "cpu")
        remarks = self.arrays.loaded(self.registration.function)
        for implementation in described:
            implementation["remarks"] += remarks
        if self.folder is not None:
            sys.path[:] = [os.path.abspath(entry) for entry in sys.path]
            os.chdir(self.folder)
        self.state = SharedState(None if self.folder is None else self.folder / DECOY)
        self._running = _running()
        self._remembered.clear()
        return {"implementations": described, "device_name": self.arrays.device_name}

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call the implementation on each set of arguments in turn; report on all, store the outputs that have the right shape."""
        assert self.registration is not None, "load comes first"
        self.arena.reserve(request["size"])
        # Held until the end, else an output could come to lie at the addresses of an earlier map and look like an alias.
        memory = self.arena.memory
        reports: list[dict[str, Any]] = []
        given: list[list[_Given]] = []
        for call in request["calls"]:
            for source, start, size in call["copies"]:
                memory[start : start + size] = memory[source : source + size]
            for wanted in call["outputs"]:
                self.arrays.poison(wanted["bytes"])
            if self._alone:
                self.state.begin_call()
            try:
                report, outputs = self._call(call, [one for earlier in given for one in earlier])
            except self._caught as error:
                if self.arrays.lost():
                    return {"lost": _first_line(error)}
                report, outputs = _described(error), []
            report["state"] = self.state.end_call() if self._alone else []
            reports.append(report)
            given.append(outputs)
            if "exception" in report:
                break
            for source, start, size in call["keep"]:
                memory[start : start + size] = memory[source : source + size]
        for report, outputs in zip(reports, given, strict=True):
            report["changed_later"] = any(self._changed(output) for output in outputs)
        reports[-1]["state"] += self.state.replaced_functions() if self._alone else []
        reports[-1]["changed_earlier"] = any(self._changed(output) for output in self._remembered)
        self._remember(given)
        return {"reports": reports, "running": _running() - self._running}

    def _call(self, call: dict[str, Any], earlier: list[_Given]) -> tuple[dict[str, Any], list[_Given]]:
        assert self.registration is not None and self.function is not None, "load comes first"
        options = {name: as_argument(call["kinds"].get(name, ""), value) for name, value in call["options"].items()}
        if isinstance(self.function, RankDriver):
            self.function.layout = call["layout"]  # which may be declared for this hunt only
        with self.arrays.calling(self.registration.function, {view["dtype"] for view in call["arrays"]}):
            arguments = self._arguments([ArrayView.from_json(view) for view in call["arrays"]])
            positional = [arguments.pop(name) for name in call["positional"]]
            result = self.function(*positional, **arguments, **options)
            self.arrays.finish(result)
        if self.connection is not None and os.getpid() != self.process:
            self._leave_copy()
        memory = self.arena.memory
        inputs = [range(memory.ctypes.data, memory.ctypes.data + memory.size), *self.arrays.copy_back()]
        results = list(result) if isinstance(result, (tuple, list)) and len(call["outputs"]) > 1 else [result]
        outputs, given = [], []
        for wanted, returned in zip(call["outputs"], results, strict=False):
            output = returned if wanted["shape"] else self.arrays.number(returned)
            facts = self.arrays.facts(output)
            if "type" not in facts:
                addresses = self.arrays.span(output)
                facts["aliases_input"] = any(overlap(addresses, argument) for argument in inputs)
                facts["shares_memory"] = any(overlap(addresses, other.addresses) for other in [*earlier, *self._remembered])
                if tuple(facts["shape"]) == tuple(wanted["shape"]) and facts["dtype"] in wanted["dtypes"]:
                    try:
                        plain = self.arrays.plain(output)
                    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:  # a tensor without data, say
                        facts["unreadable"] = _first_line(error)
                    else:
                        stored = self.arena.contiguous(facts["dtype"], facts["shape"], wanted["at"])
                        stored[...] = plain
                        given.append(_Given(output, addresses, stored))
            outputs.append({"name": wanted["name"], **facts})
        changed = [name for name, value in options.items() if isinstance(value, list) and value != list(call["options"][name])]
        return {"outputs": outputs, "count": len(results), "options_changed": changed}, given

    def _arguments(self, views: list[ArrayView]) -> dict[str, Any]:
        """Arrays by name: those of the call before are gone, and each is the object, by `id`, that they were."""
        if self.arrays.blank() is None:
            return {view.name: self.arrays.take(self.arena, view) for view in views}
        return self._identities.arguments(self.arrays.blank, lambda: {view.name: self.arrays.maker(self.arena, view) for view in views})

    def _changed(self, given: _Given) -> bool:
        """Whether an output is no longer what it was."""
        try:
            now = self.arrays.plain(given.output)
        except (RuntimeError, TypeError, ValueError):
            return True
        return now.shape != given.elements.shape or now.tobytes() != given.elements.tobytes()

    def _remember(self, given: list[list[_Given]]) -> None:
        for outputs in given:
            for output in outputs:
                if output.elements.nbytes <= LARGEST_REMEMBERED:
                    self._remembered.append(_Given(output.output, output.addresses, output.elements.copy()))

    def _leave_copy(self) -> None:
        """End a copy of this process that a call forked off and let return, after telling the judge."""
        assert self.connection is not None, "only a worker process leaves its copies"
        self.connection.sendall(b'{"copy": true}\n')
        os._exit(0)


def _described(error: BaseException) -> dict[str, Any]:
    """An exception as plain data. Its own code is not trusted to give its message."""
    name = type(error).__name__
    try:
        message = str(error)[:LONGEST_MESSAGE]
    except BaseException:  # whatever its __str__ raises
        message = "(its message cannot be read)"
    if isinstance(error, MemoryError) or "allocate memory" in message:
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        message += "" if limit == resource.RLIM_INFINITY else f" (a worker may hold {limit / 2**30:.3g} GiB of private memory)"
    frames = traceback.format_tb(error.__traceback__, limit=-LAST_FRAMES)
    found = error.kind if isinstance(error, DriverError) else ""
    return {"found": found, "exception": name, "message": message, "traceback": "".join([*frames, f"{name}: {message}"])}


def _first_line(error: BaseException) -> str:
    described = _described(error)
    return f"{described['exception']}: {described['message']}".splitlines()[0]


def _running() -> int:
    """Threads and child processes of this process."""
    children = 0
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        for task in tasks.iterdir():
            try:
                children += len((task / "children").read_bytes().split())
            except OSError:  # it has just ended
                continue
    return threading.active_count() + children


def main() -> None:
    """Entry point of the worker process: descriptors of the connection and the arena, and a folder for its calls."""
    connection, arena, folder = socket.socket(fileno=int(sys.argv[1])), Arena(int(sys.argv[2])), Path(sys.argv[3])
    silence()
    faulthandler.disable()
    np.seterr(all="ignore")
    (folder / DECOY).write_text(DECOY_CONTENTS)
    Worker(connection, arena, folder).serve()


def silence() -> None:
    """Neither read nor write: what a kernel prints must neither mix with the judge's output nor fill a pipe."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
