"""A benchmark: what is measured, by a process of its own, and how accurate it is."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.benching.calls import benched_case
from conformance.cases.case import Case, parse_case
from conformance.certificate import environment
from conformance.certify import Request, implementations
from conformance.errors import UsageError
from conformance.isolation.backends import BACKENDS
from conformance.isolation.sandbox import Sandbox
from conformance.registry import Implementation
from oracle.conditions import evaluate
from oracle.readings import value

__all__ = ["Bench", "Row", "bench", "document", "table"]

# Against which each backend's others are held, where the run does not name it.
BASELINES = {name: backend.baseline for name, backend in BACKENDS.items()}

# The oracle is asked up to so many elements of its own evaluation.
JUDGED_ELEMENTS = 1 << 22

# A call that takes longer is not repeated.
LONGEST_SECONDS = 20.0

SETTINGS = ("heads", "kv_heads", "batch", "width", "dtype", "runs", "threads", "device")
COLUMNS = (
    "name", "method", "backend", "dtype", "length", "seconds", "spread", "first_seconds", "peak_bytes", "logits_bytes", "speed", "memory",
    "doubling", "doubling_memory", "relative_error", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """What to measure.

    Attributes:
        targets: registered names, ``module:function`` or ``path/file.py:function``; none for everything registered.
        method, backend: filters, or those of targets that are not registered.
        lengths: of queries and keys, each measured for every target.
        heads, kv_heads, batch, width: of the arrays.
        dtype: of the arrays.
        runs: measurements of each, taken in turns.
        threads: that the backends' products may use; 0 for their own choice.
        device: where torch runs.
    """

    targets: tuple[str, ...] = ()
    method: str | None = None
    backend: str | None = None
    lengths: tuple[int, ...] = (256, 512, 1024, 2048)
    heads: int = 1
    kv_heads: int = 1
    batch: int = 1
    width: int = 64
    dtype: str = "float32"
    runs: int = 7
    threads: int = 0
    device: str = "cpu"


@dataclass
class Row:
    """What was measured of one implementation at one length.

    Attributes:
        name, method, backend, dtype, length: of what.
        seconds: median of a call; None where there is none.
        spread: half the distance between the quartiles, relative to the median.
        first_seconds: of the first call, with whatever it compiles or allocates.
        peak_bytes: by which memory in use grew at most during a call, as the system counts it.
        logits_bytes: of a matrix of all logits, which a kernel need not hold.
        speed, memory: of standard attention of the same backend over this one: above 1 is better.
        doubling, doubling_memory: over those at half the length, where that was measured.
        relative_error: Frobenius norm of the error over that of the exact output; None where the oracle was not asked.
        case: the call.
        error: why there are no numbers.
    """

    name: str
    method: str
    backend: str
    dtype: str
    length: int
    seconds: float | None = None
    spread: float | None = None
    first_seconds: float | None = None
    peak_bytes: int | None = None
    logits_bytes: int | None = None
    speed: float | None = None
    memory: float | None = None
    doubling: float | None = None
    doubling_memory: float | None = None
    relative_error: float | None = None
    case: str = ""
    error: str = ""
    runs: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**{name: getattr(self, name) for name in COLUMNS}, "case": self.case, "runs": self.runs}


def bench(request: Bench, progress: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """Measure; rows come to ``progress`` as they are known, but for what compares them.

    Raises:
        UsageError: a target cannot be loaded or takes no plain call, or a number is out of range.
    """
    _check(request)
    chosen = _chosen(request)
    sizes = {"b": request.batch, "h": request.heads, "g": request.kv_heads, "d": request.width, "e": request.width}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="attest-bench-") as folder:
        lengths, known = [], {}
        for length in request.lengths:
            cases = {one.name: benched_case(one, request.dtype, length, sizes) for one in chosen}
            known.update({(name, str(case)): length for name, case in cases.items()})
            lengths.append({name: str(case) for name, case in cases.items()})
        judged = [one.name for one in chosen]
        for found in _measurements(request, chosen, lengths, judged, folder):
            rows.append(_row(found, next(one for one in chosen if one.name == found["name"]), request, known[found["name"], found["case"]]))
            progress(rows[-1])
    _compare(rows)
    return rows


def _check(request: Bench) -> None:
    for name, least in (("heads", 1), ("kv_heads", 1), ("batch", 1), ("width", 1), ("runs", 1), ("threads", 0)):
        if getattr(request, name) < least:
            raise UsageError(f"{name.replace('_', '-')}={getattr(request, name)}, but should be at least {least}")
    if not request.lengths or min(request.lengths) < 1:
        raise UsageError(f"lengths={', '.join(map(str, request.lengths)) or 'none'}, but should be at least one number of at least 1")
    if request.heads % request.kv_heads:
        raise UsageError(f"heads={request.heads}, but should be a multiple of kv-heads={request.kv_heads}")


def _chosen(request: Bench) -> list[Implementation]:
    asked = Request(method=request.method, backend=request.backend, device=request.device)
    if request.targets:
        found = []
        for target in dict.fromkeys(request.targets):
            with Sandbox(device=request.device) as sandbox:
                found += sandbox.load(target, method=request.method, backend=request.backend)
    else:
        found, _ = implementations(asked)
    found = [one for one in found if request.dtype in one.dtypes]
    if not found:
        raise UsageError(f"no implementation fits the request in {request.dtype}, but at least one should")
    for backend in dict.fromkeys(one.backend for one in found):
        if backend in BASELINES and BASELINES[backend] not in {one.name for one in found}:
            with Sandbox(device=request.device) as sandbox:
                found = [*sandbox.load(BASELINES[backend]), *found]
    return found


def _measurements(
    request: Bench, chosen: Sequence[Implementation], lengths: list[dict[str, str]], judged: list[str], folder: str
) -> Iterator[dict[str, Any]]:
    asked = {
        "targets": [{"name": one.name, "target": one.target, "method": one.method, "backend": one.backend} for one in chosen],
        "lengths": lengths, "runs": request.runs, "threads": request.threads, "device": request.device, "longest": LONGEST_SECONDS,
        "outputs": folder, "judged": judged,
    }  # fmt: skip
    threads = {name: str(request.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    variables = {**os.environ, **(threads if request.threads else {}), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", "conformance.benching.worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, env=variables, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None, "all are pipes"
        process.stdin.write(json.dumps(asked))
        process.stdin.close()
        for line in process.stdout:
            yield json.loads(line)
        said = process.stderr.read().strip().splitlines()
    if process.returncode:
        raise UsageError(f"the measuring process ended with status {process.returncode}: {said[-1] if said else 'it said nothing'}")


def _row(found: dict[str, Any], implementation: Implementation, request: Bench, length: int) -> Row:
    row = Row(implementation.name, implementation.method, implementation.backend, request.dtype, length, case=found["case"])
    row.error, row.runs = found.get("error", ""), found["seconds"]
    row.first_seconds, row.peak_bytes = found.get("first_seconds"), found.get("peak_bytes")
    case = parse_case(found["case"])
    row.logits_bytes = request.batch * request.heads * length**2 * case.storage(case.specification.signature.outputs[0]).dtype.itemsize
    if row.runs:
        row.seconds = statistics.median(row.runs)
        low, _, high = statistics.quantiles(row.runs, n=4) if len(row.runs) > 1 else (row.seconds,) * 3
        row.spread = (high - low) / 2 / row.seconds
    if "output" in found:
        row.relative_error = _relative_error(case, np.load(found["output"]))
    return row


def _relative_error(case: Case, got: np.ndarray) -> float | None:
    """Frobenius norm of the error over that of the exact output; None where that would take too long."""
    if evaluate(case.specification.cost, case.facts()) > JUDGED_ELEMENTS:
        return None
    exact = value(case.specification, case.arguments())[0]
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(got - exact)) / size if size else None


def _compare(rows: list[Row]) -> None:
    """Fill in what holds a row against others of the run."""
    by_name = {(row.name, row.length): row for row in rows}
    for row in rows:
        standard = by_name.get((BASELINES.get(row.backend, ""), row.length))
        half = by_name.get((row.name, row.length // 2)) if row.length % 2 == 0 else None
        if standard is not None:
            row.speed, row.memory = _quotient(standard.seconds, row.seconds), _quotient(standard.peak_bytes, row.peak_bytes)
        if half is not None:
            row.doubling, row.doubling_memory = _quotient(row.seconds, half.seconds), _quotient(row.peak_bytes, half.peak_bytes)


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def document(request: Bench, rows: Sequence[Row]) -> dict[str, Any]:
    """The JSON document of a run."""
    return {
        "schema": 1,
        "rows": [row.to_json() for row in rows],
        "settings": {
            name: getattr(request, name) for name in ("heads", "kv_heads", "batch", "width", "dtype", "runs", "threads", "device")
        },
        "environment": {**environment(), "machine": platform.machine(), "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None},
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(["" if (value := getattr(row, name)) is None else value for name in COLUMNS])
    return out.getvalue()
