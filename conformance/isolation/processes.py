"""Processes as the system tells of them: their times, how they ended, and that they end with those that started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "asleep", "confine", "end_marked", "end_with_parent", "ending", "marked", "usage_of"]

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>: the signal that a process gets when its parent dies

# How often to look for processes that another has left, until none is found.
ROUNDS = 1000


@dataclass(frozen=True)
class Usage:
    """What a process has had of the processor.

    Attributes:
        seconds: all threads together.
        state: one letter of the system's: R where it runs or could, D where it waits for a device, S where it sleeps.
    """

    seconds: float
    state: str


def usage_of(process: int) -> Usage | None:
    """What a process has used; None where it has ended or the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Usage((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0])


def asleep(process: int) -> bool:
    """Whether all threads of a process sleep and it has no child that might work for it: it wants nothing of the processor."""
    try:
        for task in os.scandir(f"/proc/{process}/task"):
            if Path(task.path, "stat").read_text().rpartition(")")[2].split()[0] != "S" or Path(task.path, "children").read_text():
                return False
    except OSError:  # it has ended, or the system does not tell
        return False
    return True


def ending(status: int) -> str:
    """An exit status as `subprocess.Popen.returncode` has it, in words."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended itself with status {status}"


def end_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Have this process get a signal when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)


def confine(memory: int | None) -> None:
    """Have this process leave no core dump, keep within limits, and end with the one that started it.

    Args:
        memory: bytes of private memory, and of a file; None for no limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))
    end_with_parent()


def end_marked(mark: bytes) -> None:
    """End every process with a mark in its environment, wherever in the tree of processes it went."""
    for _ in range(ROUNDS):  # one may have started another meanwhile
        found = list(marked(mark))
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.001)


def marked(mark: bytes) -> Iterator[int]:
    """Every process with a mark in its environment, where the system tells."""
    if sys.platform != "linux":
        return
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it is not ours, or has just ended
                if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
