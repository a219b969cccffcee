"""A Dask cluster that runs the jobs of a campaign.

Each thread of a Dask worker does one job at a time, in a process of its own beside the worker, as on a single machine: hunts share
no interpreter. A job whose worker dies is begun again by the scheduler on another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from secrets import token_hex
from typing import Any

from conformance.campaign.jobs import Job, Message
from conformance.campaign.processes import Processes
from conformance.errors import UsageError

__all__ = ["Cluster"]

# Seconds to wait for a scheduler that does not answer.
PATIENCE = 15.0

# Seconds between looks at whether the campaign still wants the job.
WATCH = 2.0


class Cluster:
    """A crew of the workers of a Dask cluster, which have attest, the kernels and the working directory at the same place.

    Args:
        scheduler: its address, such as ``tcp://host:8786``.

    Raises:
        UsageError: the package is not installed, or the scheduler does not answer.
    """

    def __init__(self, scheduler: str) -> None:
        try:
            from distributed import Client, Event, as_completed
        except ImportError:
            raise UsageError("a Dask cluster needs a package: pip install 'attest-attention[dask]'") from None
        try:
            self._client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(f"dask={scheduler!r}, but should be the address of a scheduler that answers ({error})") from None
        self._name, self._numbers = f"attest-{token_hex(8)}", count()
        self._stop = Event(self._name, client=self._client)
        self._futures: dict[Any, Job] = {}
        self._done = as_completed(loop=self._client.loop)
        self._messages: Iterator[tuple[Job, Message]] = iter(())

    def submit(self, job: Job) -> None:
        """Have a job done when a worker has room."""
        future = self._client.submit(_run, job.to_json(), self._name, key=f"{self._name}-{next(self._numbers)}", pure=False)
        self._futures[future] = job
        self._done.add(future)

    def receive(self, seconds: float | None = None) -> tuple[Job, Message] | None:
        """Wait for the next message of a job; all of a job's come at its end."""
        while True:
            for heard in self._messages:
                return heard
            self._messages = self._of_next()

    def close(self) -> None:
        """Have the workers stop what they are at, and leave the cluster."""
        try:
            if self._futures:
                self._stop.set()
                self._client.cancel(list(self._futures))
        except (OSError, TimeoutError):  # the scheduler is gone, and with it the jobs
            pass
        finally:
            self._client.close()

    def _of_next(self) -> Iterator[tuple[Job, Message]]:
        future = next(self._done)
        job = self._futures.pop(future)
        error = future.exception()
        if error is not None:  # Dask has tried other workers
            yield job, {"failed": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
            yield job, {"over": True}
            return
        for message in future.result():
            yield job, message


def _run(data: dict[str, Any], name: str) -> list[Message]:
    """A job on a Dask worker: what it told."""
    from distributed import Event

    processes, messages, stop = Processes(1), list[Message](), Event(name)
    processes.submit(Job.from_json(data))
    looked = time.monotonic()
    try:
        while not (messages and messages[-1].keys() & {"over", "died"}):
            heard = processes.receive(WATCH)
            if heard is not None and "progress" not in heard[1]:
                messages.append(heard[1])
            if time.monotonic() - looked > WATCH:
                looked = time.monotonic()
                if stop.is_set():
                    break
    finally:
        processes.close()
    return messages
