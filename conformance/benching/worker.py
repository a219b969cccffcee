"""The process that measures: every implementation of a run is called in it at every length, in turns, so that they share its noise.

It reads one JSON request on stdin and writes JSON lines: one for each of its steps, with what it did, and at the end one for every
implementation and length.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from conformance.cases.case import Case
from conformance.cases.lines import parse_case
from conformance.isolation.backends import Arrays, arrays_of
from conformance.isolation.direct import direct_arguments
from conformance.loading import load
from conformance.registry import Registration

__all__ = ["main"]

# A single measurement calls so often that it lasts at least so many seconds.
SHORTEST = 2e-3
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def main() -> None:
    """Measure what the request asks for."""
    request = json.load(sys.stdin)
    if request["threads"] and hasattr(os, "sched_setaffinity"):  # kernels with threads of their own take as many as there are cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])
    out, sys.stdout = sys.stdout, sys.stderr  # what a kernel prints is no measurement
    kernels = {target["name"]: _loaded(target, request["threads"], request["device"]) for target in request["targets"]}

    def tell(line: dict[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    rounds: list[list[_Turn]] = []
    for cases in request["lengths"]:
        rounds.append([])
        for name, line in cases.items():
            rounds[-1].append(_Turn(name, line, *kernels[name], request))
            tell({"step": f"first call of {name}"})
    for run in range(request["runs"]):
        for number, turns in enumerate(rounds):
            for turn in turns:
                turn.measure()
            tell({"step": f"turn {run + 1} of round {number + 1}"})
    for turns in rounds:
        for turn in turns:
            tell(turn.row)


def _loaded(target: dict[str, Any], threads: int, device: str) -> tuple[Registration, Arrays]:
    [registration] = load(target["target"], method=target["method"], backend=target["backend"])
    arrays = arrays_of(target["backend"], device)
    arrays.measuring(threads)
    return registration, arrays


class _Turn:
    """One implementation at one length.

    Attributes:
        row: what is known of it.
    """

    def __init__(self, name: str, line: str, registration: Registration, arrays: Arrays, request: dict[str, Any]) -> None:
        self.row: dict[str, Any] = {"name": name, "case": line, "seconds": []}
        self._call: Callable[[], Any] | None = None
        self._repeats = 1
        try:
            call = _call(parse_case(line), registration, arrays)
            started = time.perf_counter()
            output = call()
            self.row["first_seconds"] = took = time.perf_counter() - started
            if took > request["longest"]:
                self.row["error"] = f"one call takes {took:.1f} s, but should take at most {request['longest']} s"
                return
            if (folder := request["outputs"]) is not None:
                self.row["output"] = _kept(output, arrays, Path(folder) / f"{len(os.listdir(folder))}.npy")
            self.row["peak_bytes"] = _peak(call)
            self._repeats = max(1, round(SHORTEST / max(_timed(call, 1), 1e-7)))
            self._call = call
        except Exception as error:
            self.row["error"] = f"{type(error).__name__}: {error}"

    def measure(self) -> None:
        """Once more, where it can be."""
        if self._call is not None:
            self.row["seconds"].append(_timed(self._call, self._repeats))


def _call(case: Case, registration: Registration, arrays: Arrays) -> Callable[[], Any]:
    function, given = registration.function, case.arguments()
    dtypes = {value.dtype.name for value in given.values() if isinstance(value, np.ndarray)}
    with arrays.calling(function, dtypes):
        leading, keywords = direct_arguments(registration.implementation, case, given, arrays)

    def call() -> Any:
        with arrays.calling(function, dtypes):
            output = function(*leading, **keywords)
            arrays.finish(output)
        return output

    return call


def _kept(output: Any, arrays: Arrays, path: Path) -> str:
    first = output[0] if isinstance(output, tuple) else output
    np.save(path, arrays.plain(first).astype(np.float64))
    return str(path)


def _timed(call: Callable[[], Any], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def _peak(call: Callable[[], Any]) -> int | None:
    """Bytes by which the memory in use grows at most during a call; None where the system does not tell."""
    if not os.access(CLEAR, os.W_OK):
        return None
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have left would hide what this one takes
    CLEAR.write_text(RESET_PEAK)
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
