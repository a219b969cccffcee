"""Processes of this machine that run the jobs of a campaign, so many at once, and their deaths.

A job's process is no kernel's: each kernel runs in a worker of its own below. It dies when the system runs out of memory, or of a
fault in a library, and then its job begins again in another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import subprocess
import sys
import time
from collections import deque
from typing import Protocol

from conformance.campaign.jobs import Job, Message
from conformance.isolation.processes import end_marked, ending

__all__ = ["Crew", "Processes"]

# The environment variable that marks the processes of a campaign, their workers, and all that these start.
MARK = "ATTEST_CAMPAIGN"

# Seconds that a process has to stop its worker before it is killed.
GRACE = 5.0


class Crew(Protocol):
    """Who does the jobs of a campaign."""

    def submit(self, job: Job) -> None:
        """Have a job done when there is room."""

    def receive(self, seconds: float | None = None) -> tuple[Job, Message] | None:
        """Wait for the next message of a job, the last of which is ``over`` or ``died``; None if there is none within a time."""

    def close(self) -> None:
        """Stop everything."""


class _Process:
    """A process with the job that it does."""

    def __init__(self, mark: str) -> None:
        self.job: Job | None = None
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", "from conformance.campaign.worker import main; main()", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, MARK: mark}, start_new_session=True,
        )  # fmt: skip
        assert self.popen.stdin is not None and self.popen.stdout is not None, "both are pipes"
        self._stdin, self.answers = self.popen.stdin, self.popen.stdout.fileno()
        self._received = bytearray()

    def begin(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # its end is noticed when it is waited for
            self._stdin.write(json.dumps(job.to_json()).encode() + b"\n")
            self._stdin.flush()

    def lines(self) -> list[bytes] | None:
        """What it has said, in whole lines; None if it has ended."""
        part = os.read(self.answers, 1 << 20)
        if not part:
            return None
        *whole, rest = (bytes(self._received) + part).split(b"\n")
        self._received = bytearray(rest)
        return whole

    def ask_to_stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.popen.terminate()

    def stop(self, until: float) -> int:
        """Its exit status, once it has ended or was ended."""
        try:
            self.popen.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.popen.kill()
        for pipe in (self._stdin, self.popen.stdout):
            assert pipe is not None, "both are pipes"
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return self.popen.wait()


class Processes:
    """A crew of processes of this machine.

    Args:
        workers: how many jobs run at once.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._mark = secrets.token_hex(8)
        self._waiting: deque[Job] = deque()
        self._messages: deque[tuple[Job, Message]] = deque()
        self._processes: list[_Process] = []
        self._selector = selectors.DefaultSelector()

    def submit(self, job: Job) -> None:
        """Have a job done when there is room."""
        self._waiting.append(job)

    def receive(self, seconds: float | None = None) -> tuple[Job, Message] | None:
        """Wait for the next message of a job; None if there is none within a time.

        Raises:
            IndexError: there is no job left to hear from.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while not self._messages:
            self._begin()
            if not any(process.job for process in self._processes):
                raise IndexError("no job left")
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            for key, _ in self._selector.select(left):
                self._hear(key.data)
        return self._messages.popleft()

    def close(self) -> None:
        """Stop every process, and what its kernels left behind."""
        for process in self._processes:
            process.ask_to_stop()
        until = time.monotonic() + GRACE
        for process in self._processes:
            self._selector.unregister(process.answers)
            process.stop(until)
        self._processes.clear()
        self._selector.close()
        end_marked(f"{MARK}={self._mark}".encode())

    def _begin(self) -> None:
        """Hand out jobs, to idle processes first."""
        while self._waiting:
            process = next((process for process in self._processes if process.job is None), None)
            if process is None:
                if len(self._processes) >= self.workers:
                    return
                process = _Process(self._mark)
                self._processes.append(process)
                self._selector.register(process.answers, selectors.EVENT_READ, process)
            process.begin(self._waiting.popleft())

    def _hear(self, process: _Process) -> None:
        lines = process.lines()
        if lines is None:
            self._processes.remove(process)
            self._selector.unregister(process.answers)
            status = process.stop(time.monotonic() + GRACE)
            if process.job is not None:
                self._messages.append((process.job, {"died": ending(status)}))
            return
        for line in lines:
            assert process.job is not None, "only a job makes a process speak"
            message = json.loads(line)
            self._messages.append((process.job, message))
            if "over" in message:
                process.job = None
