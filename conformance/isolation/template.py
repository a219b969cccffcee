"""A process that has imported what workers import, from which they are forked: starting one so takes milliseconds.

A template imports attest, and the package of a backend where it is known that workers need it; it loads no implementation and
makes no call, so a worker that is forked off has met no more than one that starts from nothing. It serves only while it has a
single thread, as a copy of a process has no other. It is the parent of its workers, so it tells how they ended; it ends with
the thread of the judge that started it, as a worker does that this starts itself, and workers end with it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import AF_UNIX, SOCK_SEQPACKET, recv_fds, send_fds, socket, socketpair
from typing import Any

import numpy as np

from conformance.isolation import worker
from conformance.isolation.processes import confine, end_with_parent

__all__ = ["Forked", "Template", "end_templates", "main", "template_for"]

# Seconds that a template may take to import, and to answer.
TO_IMPORT, TO_ANSWER = 120.0, 20.0

# So many are kept at once, beside those that have workers.
MOST = 3

# Variables that change all the time and that nothing reads when it is imported.
OF_THE_MOMENT = ("PYTEST_CURRENT_TEST",)

LARGEST_MESSAGE = 1 << 16


class Forked:
    """A worker that was forked off a template, with what `subprocess.Popen` tells of one.

    Attributes:
        pid: of the worker.
        returncode: its exit status, negative for a signal; None before it is known.
    """

    def __init__(self, template: Template, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._template, self._descriptor = template, descriptor

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._descriptor, select.POLLIN)
            if not ended.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            self.returncode = self._template.reap(self.pid)
            os.close(self._descriptor)
        return self.returncode


class Template:
    """The judge's end of a template.

    Args:
        environment: of the template.
        packages: that it imports.
        mark: variable by whose value a worker and what it starts are known.

    Attributes:
        serves: whether workers can be forked off it.
        lost: whether it could be, but ended; another one may do.
        workers: those that have not been waited for.
    """

    def __init__(self, environment: Mapping[str, str], packages: Sequence[str], mark: str) -> None:
        self.workers: set[int] = set()
        self.lost = False
        self._asking = threading.Lock()
        self._socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from conformance.isolation.template import main; main()", str(theirs.fileno()), mark, *packages],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        theirs.close()
        self.serves = bool(self._ask({"do": "import"}, TO_IMPORT).get("serves"))
        self.lost = False  # one that ends as it imports will do so again
        if not self.serves:
            self.end()

    def fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> Forked | None:
        """A worker; None where there is none to be had.

        Args:
            request: what it is to be like: ``home`` and ``folder`` as of `Worker`, ``mark``, ``memory`` as of `confine`, and
                ``environment``: variables by name that it has instead of the template's, None for those that it has not.
            descriptors: of its connection and of the arena.
        """
        reply = self._ask({"do": "fork", **request}, TO_ANSWER, descriptors)
        if "pid" not in reply:
            return None
        self.workers.add(reply["pid"])
        return Forked(self, reply["pid"], reply["descriptor"])

    def reap(self, pid: int) -> int:
        """The exit status of a worker that has ended. One whose template is gone was killed with it."""
        self.workers.discard(pid)
        return int(self._ask({"do": "reap", "pid": pid}, TO_ANSWER).get("status", -signal.SIGKILL))

    def end(self) -> None:
        """End it, and its workers with it."""
        self.serves = False
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def _ask(self, request: Mapping[str, Any], seconds: float, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """What it answers; nothing where it does not, which ends it."""
        with self._asking:
            try:
                self._socket.settimeout(seconds)
                send_fds(self._socket, [json.dumps(request).encode()], descriptors)
                message, received, _, _ = recv_fds(self._socket, LARGEST_MESSAGE, 1)
                reply: dict[str, Any] = json.loads(message)
            except BaseException as error:  # interrupted, it would answer the next question with the answer to this one
                self.lost = True
                self.end()
                if not isinstance(error, (OSError, ValueError)):
                    raise
                return {}
            return {**reply, "descriptor": received[0]} if received else reply


class _OfThread(threading.local):
    """The templates of a thread: a process ends with the thread that started it."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.templates: dict[tuple[Any, ...], Template] = {}


_own = _OfThread()


def template_for(environment: Mapping[str, str], packages: Sequence[str], mark: str) -> Template | None:
    """A template of this thread; None where workers cannot be forked.

    Args:
        environment: of the worker, its mark included.
        packages: that the worker will import.
        mark: as of `Template`.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    if _own.process != os.getpid():  # this is a copy of the process that they belong to
        _own.process, _own.templates = os.getpid(), {}
    lasting = {name: value for name, value in environment.items() if name not in OF_THE_MOMENT}
    lasting[mark] = "0" * len(environment[mark])  # of the same length, as it is overwritten where it lies
    relative = not all(map(os.path.isabs, lasting.get("PYTHONPATH", os.sep).split(os.pathsep)))
    key = (*sorted(lasting.items()), *packages, os.getcwd() if relative else "")
    found = _own.templates.pop(key, None)
    if found is None or found.lost:
        idle = [other for other, template in _own.templates.items() if not template.workers]
        for other in idle[: max(len(idle) - MOST + 1, 0)]:
            _own.templates.pop(other).end()
        found = Template(lasting, packages, mark)
    _own.templates[key] = found  # the last one that was asked for comes last
    return found if found.serves else None


def end_templates() -> None:
    """End the templates of this thread, and their workers with them."""
    if _own.process != os.getpid():
        return
    for template in _own.templates.values():
        template.end()
    _own.templates.clear()


atexit.register(end_templates)  # in time: the system would see to it a moment after the process has ended


def main() -> None:
    """Entry point of a template: descriptor of its connection to the judge, name of the mark, packages to import."""
    connection, mark, packages = socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3:]
    worker.silence()
    while True:
        message, descriptors, _, _ = recv_fds(connection, LARGEST_MESSAGE, 2)
        if not message:
            os._exit(0)
        request = json.loads(message)
        reply: dict[str, Any]
        sent: list[int] = []
        if request["do"] == "import":
            reply = {"serves": _imported(packages)}
        elif request["do"] == "reap":
            reply = {"status": os.waitstatus_to_exitcode(os.waitpid(request["pid"], 0)[1])}
        else:
            pid = _forked(request, descriptors, connection, mark)
            reply, sent = ({}, []) if pid is None else ({"pid": pid}, [os.pidfd_open(pid)])  # readable once it has ended
        send_fds(connection, [json.dumps(reply).encode()], sent)
        for descriptor in (*descriptors, *sent):
            os.close(descriptor)


def _imported(packages: Sequence[str]) -> bool:
    """Import packages; whether this process can be copied then."""
    for package in packages:
        with contextlib.suppress(Exception):  # what it raises is for the worker to tell
            importlib.import_module(package)
    gc.collect()
    gc.freeze()  # what is never collected need not be copied
    return len(os.listdir("/proc/self/task")) == 1


def _forked(request: Mapping[str, Any], descriptors: Sequence[int], connection: socket, mark: str) -> int | None:
    """The process of a worker that has become what it should be; None where it could not."""
    template, (heard, told) = os.getpid(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            connection.close()
            os.close(heard)
            _become(request, mark, template)
            sys.argv[1:] = [*map(str, descriptors), request["folder"]]
            os.write(told, b"!")
            os.close(told)
            worker.main()
        finally:
            os._exit(sys.exc_info()[0] is not None)
    os.close(told)
    became = os.read(heard, 1)
    os.close(heard)
    if not became:
        os.waitpid(pid, 0)
        return None
    return pid


def _become(request: Mapping[str, Any], mark: str, template: int) -> None:
    """Make this copy of a template what a worker that starts from nothing is."""
    os.setsid()
    confine(request["memory"])
    if os.getppid() != template:
        raise ChildProcessError("the template has ended")
    _overwrite(mark, request["mark"])
    for name, value in {**request["environment"], mark: request["mark"]}.items():
        if value is not None:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    os.chdir(request["home"])
    importlib.invalidate_caches()
    np.random.seed()  # Python's own generator sees to that itself


def _overwrite(name: str, value: str) -> None:
    """Give an environment variable a value of the same length where the system looks for it, which is where it lay at the start."""
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    ctypes.memmove(library.getenv(name.encode()), value.encode(), len(value))
    if f"{name}={value}".encode() not in Path("/proc/self/environ").read_bytes().split(b"\0"):
        raise OSError(f"{name} cannot be changed")
