"""The versioned JSON document that a run of ``attest certify`` writes: verdicts, what they rest on, and the environment."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conformance.accuracy import OwnError, own_errors
from conformance.diagnosis.trigger import Trigger
from conformance.errors import UsageError
from conformance.hunting.hunt import HuntResult
from conformance.isolation.backends import BACKENDS
from conformance.judge import Finding
from conformance.methods import reference_of
from conformance.registry import Implementation
from oracle import get_method

__all__ = ["EXIT_CODES", "SCHEMA_VERSION", "Certificate", "document", "exit_code", "replay_line"]

SCHEMA_VERSION = 1

# From the gravest: the exit code of a run is that of its gravest verdict.
EXIT_CODES = {"refuted": 1, "error": 2, "inconclusive": 3, "certified": 0}


@dataclass
class Certificate:
    """The result of one implementation in one dtype.

    Attributes:
        target: as it was asked for.
        implementation: what it declares; None where it could not be loaded.
        dtype: storage dtype.
        device: where it ran, as it was asked for.
        device_name: what its maker calls that, where it is not the processor.
        result: of the hunt; None where there was none.
        error: the sentence that says why there was none.
        inferred: with ``--contract infer``, the verdict, worst ratio and failing case for every preset that was tried.
    """

    target: str
    implementation: Implementation | None = None
    dtype: str = ""
    device: str = "cpu"
    device_name: str = ""
    result: HuntResult | None = None
    error: str = ""
    inferred: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The device, with its maker's name for it."""
        return f"{self.device} ({self.device_name})" if self.device_name else self.device

    @property
    def verdict(self) -> str:
        """certified, refuted, inconclusive or error."""
        return "error" if self.result is None else self.result.verdict

    @property
    def own_errors(self) -> tuple[OwnError, ...]:
        """How far the method itself is from what it approximates; whatever the verdict on the implementation."""
        if self.implementation is None:
            return ()
        return own_errors(self.implementation.method, self.dtype, self.implementation.options)

    def to_json(self) -> dict[str, Any]:
        """One entry of the document's ``results``."""
        entry: dict[str, Any] = {"target": self.target, "verdict": self.verdict}
        if self.result is None or self.implementation is None:
            return {**entry, "message": self.error}
        implementation, result = self.implementation, self.result
        return {
            **entry,
            "name": implementation.name,
            "method": implementation.method,
            "backend": implementation.backend,
            "device": self.device,
            "device_name": self.device_name,
            "dtype": self.dtype,
            "contract": result.contract.name,
            "budget": budget_reading(implementation.method),
            "inferred": self.inferred,
            "examples": result.examples,
            "seconds": round(result.seconds, 3),
            "seconds_to_finding": None if result.seconds_to_finding is None else round(result.seconds_to_finding, 3),
            "worst_ratio": number(result.worst_ratio),
            "worst_case": result.worst_case,
            "options": {
                option: result.coverage.get(option, 0) if option in implementation.options else None
                for option in get_method(implementation.method).keywords
            },
            "notes": implementation.notes,
            "coverage": dict(result.coverage),
            "conventions": dict(implementation.conventions),
            "restrictions": dict(implementation.restrictions),
            "layout": implementation.layout,
            "isolates_nan": result.isolates_nan,
            "deterministic": result.deterministic,
            "decisions": _decisions(implementation, result),
            "own_error": [error.to_json() for error in self.own_errors],
            "ruled_out": result.ruled_out,
            "not_ruled_out": result.not_ruled_out,
            "findings": [finding_json(implementation, finding, explained, result.trigger) for finding, explained in result.findings],
        }


def _decisions(implementation: Implementation, result: HuntResult) -> dict[str, int] | None:
    """Rows whose discrete decision had several legitimate outcomes, and those of them that were judged by a wider budget."""
    if not get_method(implementation.method).decisions:
        return None
    return {"near_ties": result.near_ties, "widened": result.widened}


def budget_reading(method: str) -> str:
    """Which reading of the specification the budgets came from."""
    return "running bound or perturbed reading, the smaller" if get_method(method).contracting else "running bound"


def finding_json(implementation: Implementation, finding: Finding, explained: list[str], trigger: Trigger | None) -> dict[str, Any]:
    """A finding as plain data."""
    return {
        "kind": finding.kind,
        "case": str(finding.case),
        "message": finding.message,
        "where": finding.where,
        "got": number(finding.got),
        "expected": number(finding.expected),
        "budget": number(finding.budget),
        "ratio": number(finding.ratio),
        "explained_by": explained,
        "trigger": None if trigger is None else trigger.to_json(),
        "reads": finding.reads,
        "details": finding.details,
        "replay": replay_line(implementation, finding),
    }


def number(value: float | None) -> float | str | None:
    """JSON has no NaN and no infinity: they become strings."""
    return value if value is None or math.isfinite(value) else str(value)


def replay_line(implementation: Implementation, finding: Finding) -> str:
    """The command that runs the case of a finding again."""
    declared = [f"target={shlex.quote(implementation.target)}", f"backend={implementation.backend}"]
    if (reference := reference_of(implementation.method)) != implementation.method:
        declared.append(f"method={shlex.quote(reference)}")
    declared += [f"{name}={value}" for name, value in implementation.conventions.items()]
    if implementation.any_keyword and implementation.options:
        declared.append(f"options={','.join(implementation.options)}")
    if implementation.layout is not None:
        declared.append(f"layout={','.join(implementation.layout.split())}")
    if implementation.contract is not None:
        declared.append(f"contract={implementation.contract}")
    return f"attest replay {shlex.quote(' '.join([*declared, str(finding.case)]))}"


def environment() -> dict[str, Any]:
    """What the verdicts were reached with."""
    packages: dict[str, str | None] = {}
    for package in ("attest-attention", "ml_dtypes", "hypothesis", *(name for backend in BACKENDS.values() for name in backend.packages)):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": packages,
    }


def document(
    certificates: list[Certificate], *, problems: Sequence[tuple[str, str]] = (), interrupted: bool = False
) -> dict[str, Any]:  # fmt: skip
    """The whole JSON document.

    Args:
        certificates: in the order in which they were reached.
        problems: sources of registered implementations that could not be loaded, with reasons.
        interrupted: whether the run was stopped before it reached them all.
    """
    return {
        "schema": SCHEMA_VERSION,
        "results": [certificate.to_json() for certificate in certificates],
        "problems": [list(problem) for problem in problems],
        "interrupted": interrupted,
        "environment": environment(),
    }


def exit_code(certificates: list[Certificate]) -> int:
    """0 if all are certified, else the code of the gravest verdict.

    Raises:
        UsageError: there is nothing to judge by.
    """
    if not certificates:
        raise UsageError("no implementation fits the request, but at least one should")
    verdicts = {certificate.verdict for certificate in certificates}
    return next(code for verdict, code in EXIT_CODES.items() if verdict in verdicts)
