"""The judge's end of a worker process: starts it, limits it, restarts it, and turns its death into an outcome.

The implementation shares plain data with the judge and nothing else: arrays through the arena, JSON through a socket. It
is a judge's distance, not a jail: code that sets out to attack the machine is not held back. docs/isolation.md says what
is defended and what is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from socket import socket, socketpair
from typing import Any

from conformance.cases.case import Case
from conformance.errors import UsageError
from conformance.isolation.arena import Arena
from conformance.isolation.backends import BACKENDS
from conformance.isolation.processes import asleep, confine, end_marked, ending, marked, usage_of
from conformance.isolation.template import OF_THE_MOMENT, Forked, template_for
from conformance.isolation.worker import CONNECTION_LOST, Worker
from conformance.methods import load_installed, references
from conformance.registry import Implementation

__all__ = ["MARK", "InProcess", "Limits", "Sandbox", "WorkerDied"]

# glibc fills fresh memory with the complement of this byte, 0x7f: a huge number (NaN in float16) wherever a kernel
# returns memory that it never wrote. Its cache of small blocks would hand them out as they were freed.
POISON = {"MALLOC_PERTURB_": "128"}
WITHOUT_CACHE = "glibc.malloc.tcache_count=0"

# The environment variable that marks a worker and what it starts, wherever in the tree of processes that goes to hide.
MARK = "ATTEST_WORKER"

# Calls are short and far between, and the judge, or the hunt beside, needs the other core: on a busy machine a second
# OpenMP thread makes a call forty times slower. OpenBLAS threads sleep after 2**4 cycles. What the user has set stays.
PATIENCE = {"OMP_NUM_THREADS": "1", "OPENBLAS_THREAD_TIMEOUT": "4"}

LARGEST_REPLY = 1 << 24

# Seconds between looks at a worker that has not answered yet.
WATCH = 0.05

# How much longer than the slowest call so far one may take: a slow kernel is slow on every case, and more so on a larger one.
SLOWER = 10

# How much longer than its limit a worker may take that was not given the processor for that long: machines are busy. One that
# sleeps for as long and has nobody to wait for has not asked for it.
BUSY = 6.0


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        seconds: of processor time or sleep for one request, once the first has returned; `BUSY` times as much by the clock.
        first_seconds: likewise for the first call, which may compile.
        memory: bytes of private memory, of memory in use beside the arena, and of a file that it writes.
    """

    seconds: float = 10.0
    first_seconds: float = 120.0
    memory: int = 8 << 30


class WorkerDied(Exception):
    """The worker ended, was stopped, or was not itself, instead of answering.

    Attributes:
        kind: ``crash``, ``hang``, ``exit``, ``memory`` or ``tampering``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Sandbox:
    """One worker process at a time, started on demand and again after it died. Use as a context manager.

    Attributes:
        past: the cases that the worker has run since it started.
        device_name: what its maker calls the device of what was loaded last; "" for the processor.
    """

    isolated = True

    def __init__(self, limits: Limits | None = None, *, device: str = "cpu") -> None:
        self.limits, self.device = limits or Limits(), device
        self.arena = Arena()
        self.starts = 0
        self.seconds_waiting = 0.0
        self.past: list[Case] = []
        self.device_name = ""
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._packages: tuple[str, ...] = ()
        self._connection: socket | None = None
        self._mark, self._token, self._folder = "", "", ""
        self._loaded: dict[str, Any] | None = None
        self._warm = False
        self._first_took: float | None = None
        self._slowest = 0.0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.arena.close()

    def discover(self) -> tuple[list[Implementation], list[tuple[str, str]]]:
        """Everything registered through entry points, and what could not be loaded, with reasons."""
        load_installed()
        reply = self._ask({"do": "discover"}, self.limits.first_seconds)
        return [Implementation.from_json(data) for data in reply["implementations"]], [(a, b) for a, b in reply["problems"]]

    def load(self, target: str, *, method: str | None = None, backend: str | None = None) -> list[Implementation]:
        """Load a target in the worker.

        Raises:
            UsageError: it cannot be loaded, or loading it ended the worker.
        """
        load_installed()
        self._packages = _packages(backend)
        request = {
            "do": "load", "target": target, "method": method, "methods": references(), "backend": backend, "device": self.device,
        }  # fmt: skip
        try:
            reply = self._ask(request, self.limits.first_seconds)
            loaded = [Implementation.from_json(data) for data in reply["implementations"]]
            self.device_name = str(reply["device_name"])
        except WorkerDied as death:
            raise UsageError(f"{target} cannot be imported: {death}") from None
        except (LookupError, TypeError, AttributeError):
            raise UsageError(f"{target} cannot be imported: it answers in the place of attest's worker") from None
        self._packages = _packages(loaded[-1].backend if loaded else backend)
        self._loaded, self._first_took, self._slowest = request, None, 0.0
        self.past.clear()
        return loaded

    def send(self, request: dict[str, Any]) -> None:
        """Send a request to the loaded worker, starting it afresh if need be; `receive` gets the answer.

        Raises:
            WorkerDied: it has something to say already, or did not survive loading.
        """
        if self._process is None and self._loaded is not None:
            self._ask(self._loaded, self.limits.first_seconds)
        self._send(request)

    def receive(self) -> dict[str, Any]:
        """Wait for the answer to the last `send`.

        Raises:
            WorkerDied: there is none.
        """
        # A first call may compile; once one has returned, it is known how long that takes, which another shape may cost again.
        started = time.monotonic()
        if self._first_took is None:
            limit = self.limits.first_seconds
        else:
            limit = self.limits.seconds + 2 * self._first_took + SLOWER * self._slowest
        reply = self._with_device(self._receive(limit))
        took = time.monotonic() - started
        if self._warm:
            self._slowest = max(self._slowest, took)
        else:
            self._first_took = took
        self._warm = True
        return reply

    def _with_device(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "lost" in reply:
            self.stop()
            raise WorkerDied("crash", f"the device can do nothing more for the process after {reply['lost']}")
        return reply

    def restart(self) -> None:
        """End the worker; the next request meets a new one without any history."""
        self.stop()

    def stop(self) -> None:
        """End the worker and everything that it started."""
        if self._process is None:
            return
        if self._connection is not None:
            self._connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        end_marked(f"{MARK}={self._mark}".encode())
        shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._connection = None
        self._warm = False
        self.past.clear()

    def reject(self, message: str) -> WorkerDied:
        """End a worker whose answers are not its own; what to raise about it."""
        self.stop()
        return WorkerDied("tampering", message)

    def _ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        self._send(request)
        reply = self._receive(limit)
        if "usage_error" in reply:
            raise UsageError(str(reply["usage_error"]))
        return reply

    def _send(self, request: dict[str, Any]) -> None:
        if self._process is None:
            self._start()
        assert self._connection is not None, "a started worker has a connection"
        self._token = secrets.token_hex(8)
        self._connection.settimeout(0)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            if self._connection.recv(1):
                raise self.reject("something answered that was not asked")
        self._connection.settimeout(self.limits.seconds)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):  # `receive` reports the death
            self._connection.sendall(json.dumps({**request, "token": self._token}).encode() + b"\n")

    def _receive(self, limit: float) -> dict[str, Any]:
        started = time.monotonic()
        try:
            line, _, more = self._read(started + limit, limit).partition(b"\n")
        finally:
            self.seconds_waiting += time.monotonic() - started
        try:
            reply: dict[str, Any] = json.loads(line)
            token, copied = reply.get("token"), reply.get("copy")
        except (ValueError, AttributeError, RecursionError):
            raise self.reject("the answer is not one of attest's worker") from None
        if copied:
            raise self.reject("a call forked the process and let the copy return too")
        if more or token != self._token:
            raise self.reject("something answered in the place of attest's worker")
        return reply

    def _read(self, until: float, limit: float) -> bytes:
        """What comes, to the end of a line or beyond."""
        assert self._connection is not None, "receive follows send"
        received, spent, slept = bytearray(), self._processor_seconds(), 0.0
        self._connection.settimeout(WATCH)
        while b"\n" not in received:
            try:
                part = self._connection.recv(1 << 16)
            except TimeoutError:
                part = None
            except OSError:
                part = b""
            if part == b"":
                raise self._post_mortem()
            received += part or b""
            if len(received) > LARGEST_REPLY:
                raise self.reject("the answer has no end")
            if part is None:
                self._look_at_memory()
                slept = slept + WATCH if self._sleeps(slept + WATCH > limit) else 0.0
            late = time.monotonic() - until
            if late > (BUSY - 1) * limit or (late > 0 and (slept > limit or self._processor_seconds() - spent > limit)):
                self.stop()
                raise WorkerDied("hang", f"no answer within {limit:.3g} s")
        return bytes(received)

    def _processor_seconds(self) -> float:
        """Processor time that the worker has had, all threads together; by the clock where the system does not tell."""
        assert self._process is not None, "only a started worker is waited for"
        usage = usage_of(self._process.pid)
        return time.monotonic() if usage is None else usage.seconds

    def _sleeps(self, alone: bool) -> bool:
        """Whether the worker sleeps; if ``alone``, also whether no process that it started, in whatever way, may work for it."""
        assert self._process is not None, "only a started worker is waited for"
        if self.device != "cpu" or not asleep(self._process.pid):
            return False
        return not alone or len(list(marked(f"{MARK}={self._mark}".encode()))) == 1

    def _look_at_memory(self) -> None:
        """Stop a worker that holds more than it may. Its own limit does not count memory that it shares, with itself say."""
        assert self._process is not None, "only a started worker is waited for"
        if self.device != "cpu" or sys.platform != "linux":
            return
        with contextlib.suppress(OSError, IndexError):
            resident = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * resource.getpagesize()
            if resident > self.limits.memory + self.arena.size:
                self.stop()
                raise WorkerDied("memory", f"the process held {_gib(resident)}, but should hold at most {_gib(self.limits.memory)}")

    def _post_mortem(self) -> WorkerDied:
        assert self._process is not None, "only a started worker dies"
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = CONNECTION_LOST
        self.stop()
        if code == CONNECTION_LOST:
            return WorkerDied("crash", "the worker lost its connection, as when a call closes file descriptors that it did not open")
        if code == -signal.SIGKILL:
            return WorkerDied("crash", "the process was killed by SIGKILL, as a system does that runs out of memory")
        return WorkerDied("crash" if code < 0 else "exit", f"the process {ending(code)}")

    def _start(self) -> None:
        ours, theirs = socketpair()
        self._mark, self._folder = secrets.token_hex(8), tempfile.mkdtemp(prefix="attest-")
        tunables = ":".join(filter(None, [os.environ.get("GLIBC_TUNABLES"), WITHOUT_CACHE]))
        environment = {
            **PATIENCE, **_environment(self.device), **os.environ, **POISON, "GLIBC_TUNABLES": tunables, MARK: self._mark,
        }  # fmt: skip
        descriptors = theirs.fileno(), self.arena.descriptor
        self._process = self._forked(environment, descriptors) or self._fresh(environment, descriptors)
        theirs.close()
        self._connection = ours
        self.starts += 1
        self._warm = False
        self.past.clear()

    def _forked(self, environment: dict[str, str], descriptors: tuple[int, int]) -> Forked | None:
        """A worker that need not import what every worker does; None where there is no such thing."""
        template = template_for(environment, self._packages, MARK) if self.device == "cpu" else None
        if template is None:
            return None
        request = {
            "home": os.getcwd(), "folder": self._folder, "mark": self._mark, "memory": self._memory,
            "environment": {name: environment.get(name) for name in OF_THE_MOMENT},
        }  # fmt: skip
        return template.fork(request, descriptors)

    def _fresh(self, environment: dict[str, str], descriptors: tuple[int, int]) -> subprocess.Popen[bytes]:
        """A worker that starts from nothing."""
        memory = self._memory
        return subprocess.Popen(
            # Not "-m": the worker's module should be the one that a kernel finds under its name.
            [sys.executable, "-P", "-c", "from conformance.isolation.worker import main; main()", *map(str, descriptors), self._folder],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: confine(memory),
        )

    @property
    def _memory(self) -> int | None:
        return self.limits.memory if self.device == "cpu" else None


class InProcess(Sandbox):
    """No worker: the implementation runs in this process, where a debugger can follow it and nothing holds it back."""

    isolated = False

    def __init__(self, limits: Limits | None = None, *, device: str = "cpu") -> None:
        super().__init__(limits, device=device)
        self._worker = Worker(None, self.arena)
        self._request: dict[str, Any] = {}

    def send(self, request: dict[str, Any]) -> None:
        """Keep the request until it is asked for."""
        self._request = request

    def receive(self) -> dict[str, Any]:
        """Run the request now."""
        return self._with_device(self._worker.answer(self._request))

    def _ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        reply = self._worker.answer(request)
        if "usage_error" in reply:
            raise UsageError(reply["usage_error"])
        return reply


def _environment(device: str) -> dict[str, str]:
    """What the backends want a worker to start with on a device."""
    kind = device.partition(":")[0]
    return {name: text for backend in BACKENDS.values() for name, text in backend.environment.get(kind, {}).items()}


def _packages(backend: str | None) -> tuple[str, ...]:
    """What a worker that runs a backend imports and may find imported."""
    return BACKENDS[backend].preloaded if backend in BACKENDS else ()


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
