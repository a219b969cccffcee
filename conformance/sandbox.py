"""The judge's end of a worker process: starts it, limits it, restarts it, and turns its death into an outcome.

The implementation shares plain data with the judge and nothing else: arrays through the arena, JSON through a socket. It
is a judge's distance, not a jail: code that sets out to attack the machine is not held back.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from socket import socketpair
from typing import Any

from conformance.arena import Arena
from conformance.errors import UsageError
from conformance.registry import Implementation
from conformance.worker import Worker

__all__ = ["InProcess", "Limits", "Sandbox", "WorkerDied"]

# glibc fills fresh memory with the complement of this byte, 0x7f: a huge number (NaN in float16) wherever a kernel
# returns memory that it never wrote.
POISON = {"MALLOC_PERTURB_": "128"}

# A thread that waits for the next parallel loop sleeps at once (OpenBLAS: after 2**4 cycles) instead of spinning: calls are
# short and far between, and the judge, or the hunt beside, needs the core. What the user has set stays.
PATIENCE = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "4"}

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>: the signal that a process gets when its parent dies


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    Attributes:
        seconds: for one request, once the first has returned.
        first_seconds: for the first call, which may compile.
        memory: bytes of private memory.
    """

    seconds: float = 10.0
    first_seconds: float = 120.0
    memory: int = 8 << 30


class WorkerDied(Exception):
    """The worker ended or was stopped instead of answering.

    Attributes:
        kind: ``crash``, ``hang`` or ``exit``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Sandbox:
    """One worker process at a time, started on demand and again after it died. Use as a context manager."""

    isolated = True

    def __init__(self, limits: Limits | None = None, *, device: str = "cpu") -> None:
        self.limits, self.device = limits or Limits(), device
        self.arena = Arena()
        self.starts = 0
        self.seconds_waiting = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._loaded: dict[str, Any] | None = None
        self._warm = False
        self._first_took: float | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.arena.close()

    def discover(self) -> tuple[list[Implementation], list[tuple[str, str]]]:
        """Everything registered through entry points, and what could not be loaded, with reasons."""
        reply = self._ask({"do": "discover"}, self.limits.first_seconds)
        return [Implementation.from_json(data) for data in reply["implementations"]], [(a, b) for a, b in reply["problems"]]

    def load(self, target: str, *, method: str | None = None, backend: str | None = None) -> list[Implementation]:
        """Load a target in the worker.

        Raises:
            UsageError: it cannot be loaded, or loading it ended the worker.
        """
        request = {"do": "load", "target": target, "method": method, "backend": backend, "device": self.device}
        try:
            reply = self._ask(request, self.limits.first_seconds)
        except WorkerDied as death:
            raise UsageError(f"{target} cannot be imported: {death}") from None
        self._loaded, self._first_took = request, None
        return [Implementation.from_json(data) for data in reply["implementations"]]

    def send(self, request: dict[str, Any]) -> None:
        """Send a request to the loaded worker, starting it afresh if need be; `receive` gets the answer."""
        if self._process is None and self._loaded is not None:
            self._ask(self._loaded, self.limits.first_seconds)
        self._send(request)

    def receive(self) -> dict[str, Any]:
        """Wait for the answer to the last `send`.

        Raises:
            WorkerDied: there is none.
        """
        limit, started = self.limits.seconds, time.monotonic()
        if not self._warm:  # a first call may compile; once one has returned, it is known how long that takes
            limit = self.limits.first_seconds if self._first_took is None else limit + 2 * self._first_took
        reply = self._receive(limit)
        if not self._warm:
            self._first_took = time.monotonic() - started
        self._warm = True
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
        self._process = self._connection = None
        self._warm = False

    def _ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        self._send(request)
        reply = self._receive(limit)
        if "usage_error" in reply:
            raise UsageError(reply["usage_error"])
        return reply

    def _send(self, request: dict[str, Any]) -> None:
        if self._process is None:
            self._start()
        assert self._connection is not None, "a started worker has a connection"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `receive` reports the death
            self._connection.send_bytes(json.dumps(request).encode())

    def _receive(self, limit: float) -> dict[str, Any]:
        assert self._connection is not None and self._process is not None, "receive follows send"
        started = time.perf_counter()
        try:
            if not self._connection.poll(limit):
                self.stop()
                raise WorkerDied("hang", f"no answer within {limit:g} s")
            reply: dict[str, Any] = json.loads(self._connection.recv_bytes())
            return reply
        except (EOFError, OSError, ValueError):
            raise self._post_mortem() from None
        finally:
            self.seconds_waiting += time.perf_counter() - started

    def _post_mortem(self) -> WorkerDied:
        assert self._process is not None, "only a started worker dies"
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self.stop()
        if code is None:
            return WorkerDied("crash", "the worker stopped answering")
        if code < 0:
            return WorkerDied("crash", f"the process was killed by {signal.Signals(-code).name}")
        return WorkerDied("exit", f"the process ended itself with status {code}")

    def _start(self) -> None:
        ours, theirs = socketpair()
        memory = self.limits.memory if self.device == "cpu" else None
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "conformance.worker", str(theirs.fileno()), str(self.arena.descriptor)],
            pass_fds=(theirs.fileno(), self.arena.descriptor),
            stdin=subprocess.DEVNULL,
            env={**PATIENCE, **os.environ, **POISON},
            start_new_session=True,
            preexec_fn=lambda: _prepare_worker(memory),
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self.starts += 1
        self._warm = False


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
        return self._worker.answer(self._request)

    def _ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        reply = self._worker.answer(request)
        if "usage_error" in reply:
            raise UsageError(reply["usage_error"])
        return reply


def _prepare_worker(memory: int | None) -> None:
    """Between fork and exec: no core dumps, a limit of private memory, and an end with the judge's own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
