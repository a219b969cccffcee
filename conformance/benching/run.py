"""A benchmark: what is measured, by a process of its own, and how accurate it is."""

from __future__ import annotations

import csv
import io
import os
import platform
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.benching.calls import benched_case, refuses, usual_options
from conformance.benching.measuring import Kernel, Step, measured
from conformance.cases.case import Case
from conformance.cases.lines import parse_case
from conformance.certificate import environment
from conformance.certify import Request, implementations
from conformance.errors import UsageError
from conformance.isolation.backends import BACKENDS
from conformance.isolation.sandbox import Sandbox
from conformance.registry import Implementation
from oracle import METHODS
from oracle.conditions import evaluate
from oracle.readings import value

__all__ = ["BASELINES", "Bench", "Row", "bench", "check_request", "document", "table"]

# Against which each backend's others are held, where the run does not name it.
BASELINES = {name: backend.baseline for name, backend in BACKENDS.items()}

# The oracle is asked up to so many elements of its own evaluation.
JUDGED_ELEMENTS = 1 << 22

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
        options: values of options, as in the line of a case, for the methods that have them.
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
    options: Mapping[str, str] = field(default_factory=dict)


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
        speed, memory: of standard attention of the same backend over this one: above 1 is better. Of times, the median over turns.
        doubling, doubling_memory: over those at half the length, where that was measured; likewise.
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


def bench(request: Bench, step: Step = lambda what, done, total: None) -> list[Row]:
    """Measure; ``step`` is told what was done, as which step of how many.

    Raises:
        UsageError: a target cannot be loaded or takes no plain call, or a number is out of range.
    """
    check_request(request)
    chosen = _chosen(request)
    _check_options(request, chosen)
    sizes = {"b": request.batch, "h": request.heads, "g": request.kv_heads, "d": request.width, "e": request.width}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="attest-bench-") as folder:
        lengths, known = [], {}
        for length in request.lengths:
            options = {one.name: usual_options(one, length, request.options) for one in chosen}
            cases = {one.name: benched_case(one, request.dtype, length, sizes, options[one.name]) for one in chosen}
            known.update({(name, str(case)): length for name, case in cases.items()})
            lengths.append({name: str(case) for name, case in cases.items()})
        kernels = [Kernel(one.name, one.target, one.method, one.backend) for one in chosen]
        for found in measured(
            kernels, lengths, runs=request.runs, threads=request.threads, device=request.device, outputs=folder, step=step
        ):
            rows.append(_row(found, next(one for one in chosen if one.name == found["name"]), request, known[found["name"], found["case"]]))
    _compare(rows)
    return rows


def check_request(request: Bench) -> None:
    """Raise `UsageError` for what is out of range."""
    for name, least in (("heads", 1), ("kv_heads", 1), ("batch", 1), ("width", 1), ("runs", 1), ("threads", 0)):
        if getattr(request, name) < least:
            raise UsageError(f"{name.replace('_', '-')}={getattr(request, name)}, but should be at least {least}")
    if not request.lengths or min(request.lengths) < 1:
        raise UsageError(f"lengths={', '.join(map(str, request.lengths)) or 'none'}, but should be at least one number of at least 1")
    if request.heads % request.kv_heads:
        raise UsageError(f"heads={request.heads}, but should be a multiple of kv-heads={request.kv_heads}")


def _check_options(request: Bench, chosen: Sequence[Implementation]) -> None:
    """Every option must be one that something of the run takes; standard attention beside it need not."""
    asked = [one for one in chosen if not request.targets or one.name not in BASELINES.values() or one.name in request.targets]
    for name, text in request.options.items():
        methods = [METHODS[one.method] for one in asked if name in METHODS[one.method].options]
        if not methods:
            raise UsageError(f"option={name!r}, but should be an option of a method that is measured (see 'attest explain METHOD')")
        reasons = [refuses(method, name, text) for method in methods]
        if all(reasons):
            raise UsageError(reasons[0])


def _chosen(request: Bench) -> list[Implementation]:
    if not request.targets:
        found, _ = implementations(Request(method=request.method, backend=request.backend, device=request.device))
    with Sandbox(device=request.device) as sandbox:
        if request.targets:
            loaded = (sandbox.load(target, method=request.method, backend=request.backend) for target in dict.fromkeys(request.targets))
            found = [one for own in loaded for one in own]
        found = [one for one in found if request.dtype in one.dtypes]
        if not found:
            raise UsageError(f"no implementation fits the request in {request.dtype}, but at least one should")
        for backend in dict.fromkeys(one.backend for one in found):
            if backend in BASELINES and BASELINES[backend] not in {one.name for one in found}:
                found = [*sandbox.load(BASELINES[backend]), *found]
    return found


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
            row.speed, row.memory = _median_quotient(standard.runs, row.runs), _quotient(standard.peak_bytes, row.peak_bytes)
        if half is not None:
            row.doubling, row.doubling_memory = _median_quotient(row.runs, half.runs), _quotient(row.peak_bytes, half.peak_bytes)


def _median_quotient(above: Sequence[float], below: Sequence[float]) -> float | None:
    """Of what was measured in the same turn, so that what slows a machine for a while slows both."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True)) if above and below else None


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def document(request: Bench, rows: Sequence[Row] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON document of a run: of implementations, or of a study."""
    return {
        "schema": 1,
        "rows": [row.to_json() if isinstance(row, Row) else dict(row) for row in rows],
        "settings": {**{name: getattr(request, name) for name in SETTINGS}, "options": dict(request.options)},
        "environment": {**environment(), "machine": platform.machine(), "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None},
    }


def table(rows: Sequence[Row] | Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    lines = [{name: getattr(row, name) for name in COLUMNS} if isinstance(row, Row) else row for row in rows]
    columns = list(lines[0]) if lines else list(COLUMNS)
    writer.writerow(columns)
    for line in lines:
        writer.writerow(["" if line[name] is None else line[name] for name in columns])
    return out.getvalue()
