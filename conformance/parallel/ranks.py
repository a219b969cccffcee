"""Real processes that wait for calls: one pool for each number of them, joined by `torch.distributed` over gloo.

A pool is forked off a launcher, which is forked off once, before anything has been computed, and never computes: what threads and
locks a computation leaves behind does not survive a fork. All of them end with the process that uses them.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from conformance.isolation.processes import end_with_parent, ending, usage_of

__all__ = ["Answer", "Failure", "Job", "Ranks"]

Array = Any  # a tensor

# Seconds that the other processes get to tell what went wrong after one has.
GRACE = 1.0

# Seconds between looks at processes that have not answered; after how many of them without anything done they wait for each other.
WATCH = 0.05
STUCK = 4.0

# gloo's own thread wakes up a hundred times a second, which takes this part of a processor at most.
IDLE = 0.1


@dataclass(frozen=True)
class Job:
    """What one process is called with.

    Attributes:
        arrays: those that are passed by position, by name.
        keywords: those that are passed by name.
        options: everything else by name.
        facts: which facts of its process it wants to know.
    """

    arrays: dict[str, Array]
    keywords: dict[str, Array]
    options: dict[str, Any]
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What one process returned, and the arguments that it wrote to."""

    outputs: Any
    changed: dict[str, Array]


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: the type of an exception, and a message that says on which process.

    Attributes:
        type, message: of the exception; "" for what is none.
        ended: whether a process ended, which is why others lose their connections.
        waiting: whether none of the processes that owe an answer does anything any more.
    """

    type: str
    message: str
    ended: bool = False
    waiting: bool = False


class Ranks:
    """Processes that call a function together; started when they are first asked for, one set for each number of them.

    Args:
        function: that each of them calls.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        ours, theirs = Pipe()
        child = os.fork()
        if not child:
            # Not a child of the caller's: it counts those that calls leave.
            if not os.fork():
                ours.close()
                _end_quietly(lambda: _launch(function, theirs))
            os._exit(0)
        os.waitpid(child, 0)
        theirs.close()
        self._launcher = ours

    def run(self, jobs: Sequence[Job]) -> list[Answer] | Failure:
        """Call the function on as many processes as there are jobs, each with its own."""
        packed = [(_packed_all(job.arrays), _packed_all(job.keywords), job.options, job.facts) for job in jobs]
        try:
            self._launcher.send_bytes(pickle.dumps(packed))
            answers = pickle.loads(self._launcher.recv_bytes())
        except (EOFError, OSError):
            return Failure("", "the process that starts the others is gone", ended=True)
        if isinstance(answers, Failure):
            return answers
        return [Answer(_unpacked(outputs), _unpacked_all(changed)) for outputs, changed in answers]


def _end_quietly(main: Callable[[], None]) -> None:
    """Run what a forked process is for, and end it without returning to its parent's code."""
    try:
        main()
    except BaseException:  # whatever it is, the parent sees the closed pipe
        os._exit(1)
    os._exit(0)


# The launcher.


def _launch(function: Callable[..., Any], caller: Connection) -> None:
    pools: dict[int, _Pool] = {}
    folder = tempfile.mkdtemp(prefix="attest-ranks-")
    try:
        while True:
            try:
                jobs = pickle.loads(caller.recv_bytes())
            except (EOFError, OSError):
                return
            size = len(jobs)
            if size not in pools:
                pools[size] = _Pool(function, size, folder)
            answers = pools[size].run(jobs)
            if isinstance(answers, Failure):  # a process that failed may have left the others in the middle of something
                pools.pop(size).stop()
            caller.send_bytes(pickle.dumps(answers))
    finally:
        for pool in pools.values():
            pool.stop()
        shutil.rmtree(folder, ignore_errors=True)


class _Pool:
    """The processes of one world."""

    def __init__(self, function: Callable[..., Any], size: int, folder: str) -> None:
        descriptor, store = tempfile.mkstemp(dir=folder)
        os.close(descriptor)
        self.processes: list[int] = []
        self.pipes: list[Connection] = []
        for rank in range(size):
            ours, theirs = Pipe()
            process = os.fork()
            if not process:
                for pipe in (ours, *self.pipes):
                    pipe.close()
                _end_quietly(lambda rank=rank, theirs=theirs: _serve(function, rank, size, store, theirs))  # type: ignore[misc]
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def run(self, jobs: Sequence[Any]) -> list[Any] | Failure:
        """Give every process its job and collect what they answer."""
        for pipe, job in zip(self.pipes, jobs, strict=True):
            try:
                pipe.send_bytes(pickle.dumps(job))
            except (BrokenPipeError, ConnectionResetError):
                continue  # it is gone, which is seen below
        answers: dict[int, Any] = {}
        failures: list[Failure] = []
        watched, until = _Watch(self.processes), float("inf")
        while len(answers) < len(jobs) and time.monotonic() < until:
            ready = wait([pipe for rank, pipe in enumerate(self.pipes) if rank not in answers], WATCH)
            for rank in [rank for rank, pipe in enumerate(self.pipes) if pipe in ready]:
                try:
                    answer = pickle.loads(self.pipes[rank].recv_bytes())
                except (EOFError, OSError):
                    answer = self._ended(rank, len(jobs))
                if isinstance(answer, Failure):
                    failures.append(answer)
                answers[rank] = answer
                until = min(until, time.monotonic() + GRACE) if failures else until
            if watched.stuck():
                silent = ", ".join(str(rank) for rank in range(len(jobs)) if rank not in answers)
                failures.append(Failure("", f"of {len(jobs)} processes, rank {silent} waits for what does not come", waiting=True))
                break
        if failures and not failures[0].waiting:
            failures += [ended for rank in range(len(jobs)) if rank not in answers and (ended := self._ended(rank, len(jobs), os.WNOHANG))]
        # The others may only have lost their connection to one that ended.
        failures.sort(key=lambda failure: not failure.ended)
        return failures[0] if failures else [answers[rank] for rank in range(len(jobs))]

    def _ended(self, rank: int, size: int, options: int = 0) -> Failure | None:
        process, status = os.waitpid(self.processes[rank], options)
        if not process:
            return None
        return Failure("", f"rank {rank} of {size} {ending(os.waitstatus_to_exitcode(status))}", ended=True)

    def stop(self) -> None:
        """End the processes."""
        for process in self.processes:
            try:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        for pipe in self.pipes:
            pipe.close()


class _Watch:
    """Whether some processes have done nothing for a while: neither run nor been about to."""

    def __init__(self, processes: Sequence[int]) -> None:
        self.processes = processes
        self._since, self._spent = time.monotonic(), self._seconds()[0]

    def stuck(self) -> bool:
        """Look at them now."""
        now, (spent, running) = time.monotonic(), self._seconds()
        if running or spent - self._spent > IDLE * (now - self._since + 1):
            self._since, self._spent = now, spent
        return now - self._since > STUCK

    def _seconds(self) -> tuple[float, bool]:
        """Processor time that they have had together, and whether one of them is running or could; never stuck where the system is mute."""
        usages = [usage for process in self.processes if (usage := usage_of(process)) is not None]
        mute = not usages and sys.platform != "linux"
        return sum(usage.seconds for usage in usages), mute or any(usage.state in "RD" for usage in usages)


# A process of a pool.


def _serve(function: Callable[..., Any], rank: int, size: int, store: str, launcher: Connection) -> None:
    import torch.distributed

    end_with_parent()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine, whose name may mean nothing here
    shared = torch.distributed.FileStore(store, size)  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=shared, rank=rank, world_size=size)
    world = torch.distributed.group.WORLD
    facts = {"group": world, "process_group": world, "rank": rank, "world_size": size}
    while True:
        try:
            job = pickle.loads(launcher.recv_bytes())
        except (EOFError, OSError):
            return
        launcher.send_bytes(_answer(function, job, facts, f"rank {rank} of {size}"))


def _answer(function: Callable[..., Any], job: Any, facts: dict[str, Any], place: str) -> bytes:
    import torch

    arrays, keywords, options, wanted = job
    by_position, by_name = _unpacked_all(arrays), _unpacked_all(keywords)
    given = by_position | by_name
    before = {name: array.clone() for name, array in given.items()}
    try:
        with torch.no_grad():
            outputs = function(*by_position.values(), **by_name, **options, **{fact: facts[fact] for fact in wanted})
        changed = {name: array for name, array in given.items() if _bytes_of(array) != _bytes_of(before[name])}
        return pickle.dumps((_packed(outputs), _packed_all(changed)))
    except BaseException as error:  # in a process of its own nothing that a kernel raises is meant for us
        return pickle.dumps(Failure(type(error).__name__, f"{error} ({place})"))


# Tensors as plain data, laid out alike on the other side.


@dataclass(frozen=True)
class _Packed:
    elements: bytes
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Other:
    type: str


def _packed_all(arrays: dict[str, Array]) -> dict[str, Any]:
    return {name: _packed(array) for name, array in arrays.items()}


def _unpacked_all(packed: dict[str, Any]) -> dict[str, Array]:
    return {name: _unpacked(array) for name, array in packed.items()}


def _bytes_of(array: Array) -> bytes:
    import torch

    return array.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()


def _packed(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return _Packed(_bytes_of(value), str(value.dtype).removeprefix("torch."), tuple(value.shape), tuple(value.stride()))
    return [_packed(one) for one in value] if isinstance(value, (tuple, list)) else _Other(type(value).__name__)


def _unpacked(packed: Any) -> Any:
    import torch

    if isinstance(packed, list):
        return [_unpacked(one) for one in packed]
    if isinstance(packed, _Other):
        return type(packed.type, (), {})()  # all that is asked of it is what it is
    dtype = getattr(torch, packed.dtype)
    if not packed.elements:
        return torch.empty(packed.shape, dtype=dtype)
    elements = torch.frombuffer(bytearray(packed.elements), dtype=dtype).reshape(packed.shape)
    if elements.stride() == packed.strides:
        return elements
    span = 1 + sum((size - 1) * stride for size, stride in zip(packed.shape, packed.strides, strict=True))
    own = torch.full((span,), float("nan")).to(dtype).as_strided(packed.shape, packed.strides)
    for axis, stride in enumerate(packed.strides):
        if not stride:  # one element stands for all along this axis
            own, elements = own.narrow(axis, 0, 1), elements.narrow(axis, 0, 1)
    own.copy_(elements)
    return own.expand(packed.shape)
