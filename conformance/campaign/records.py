"""Certificates as plain data and back: what processes of a campaign send to each other, and what a ledger keeps.

Unlike the public document of `conformance.certificate`, a record loses nothing that a report shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from conformance.cases.lines import parse_case
from conformance.certificate import Certificate, number
from conformance.diagnosis.pictures import Picture
from conformance.diagnosis.trigger import Trigger
from conformance.hunting.hunt import HuntResult
from conformance.judge import Finding
from conformance.registry import Implementation
from oracle.readings.contract import CONTRACTS

__all__ = ["certificate_of", "record_of"]

# What a record has of these as it is; the other fields need a form of their own. The clock is of no use to a report.
RESULT = (
    "verdict", "examples", "seconds", "worst_ratio", "worst_case", "ruled_out", "not_ruled_out", "seconds_to_finding", "isolates_nan",
    "deterministic", "near_ties", "widened", "ratios",
)  # fmt: skip
FINDING = ("kind", "message", "where", "details", "reads")
FIGURES = ("got", "expected", "budget", "ratio")
PLANES = ("got", "expected", "ratio")


def record_of(certificate: Certificate) -> dict[str, Any]:
    """A certificate as data that JSON has words for."""
    implementation, result = certificate.implementation, certificate.result
    return {
        "target": certificate.target,
        "dtype": certificate.dtype,
        "device": certificate.device,
        "device_name": certificate.device_name,
        "error": certificate.error,
        "inferred": [{**tried, "worst_ratio": _plain(tried["worst_ratio"])} for tried in certificate.inferred],
        "implementation": None if implementation is None else implementation.to_json(),
        "result": None if result is None else _result_record(result),
    }


def certificate_of(record: dict[str, Any]) -> Certificate:
    """Undo `record_of`. A method from outside that the record names must have been loaded."""
    implementation = None if record["implementation"] is None else Implementation.from_json(record["implementation"])
    result = None
    if record["result"] is not None:
        assert implementation is not None, "what has a result has been loaded"
        result = _result(record["result"], implementation)
    return Certificate(
        record["target"], implementation, record["dtype"], record["device"], record["device_name"], result, record["error"],
        record["inferred"],
    )  # fmt: skip


def _result_record(result: HuntResult) -> dict[str, Any]:
    return {
        **{name: _plain(getattr(result, name)) for name in RESULT},
        "contract": result.contract.name,
        "coverage": dict(result.coverage),
        "trigger": None if result.trigger is None else result.trigger.to_json(),
        "findings": [{**_finding_record(finding), "explained_by": explained} for finding, explained in result.findings],
        "pictures": [_picture_record(picture) for picture in result.pictures],
    }


def _result(record: dict[str, Any], implementation: Implementation) -> HuntResult:
    same = {name: record[name] for name in RESULT}
    same |= {"worst_ratio": float(record["worst_ratio"]), "ratios": [float(ratio) for ratio in record["ratios"]]}
    return HuntResult(
        **same, contract=CONTRACTS[record["contract"]], implementation=implementation, coverage=Counter(record["coverage"]),
        trigger=None if record["trigger"] is None else Trigger(**record["trigger"]),
        findings=[(_finding(finding), finding["explained_by"]) for finding in record["findings"]],
        pictures=[_picture(picture) for picture in record["pictures"]],
    )  # fmt: skip


def _finding_record(finding: Finding) -> dict[str, Any]:
    plain = {name: getattr(finding, name) for name in FINDING}
    return {**plain, **{name: number(getattr(finding, name)) for name in FIGURES}, "case": str(finding.case)}


def _finding(record: dict[str, Any]) -> Finding:
    figures = {name: None if record[name] is None else float(record[name]) for name in FIGURES}
    return Finding(case=parse_case(record["case"]), **{name: record[name] for name in FINDING}, **figures)  # type: ignore[arg-type]


def _picture_record(picture: Picture) -> dict[str, Any]:
    return {**asdict(picture), **{name: _plain(getattr(picture, name).tolist()) for name in PLANES}}


def _picture(record: dict[str, Any]) -> Picture:
    made = {field.name: record[field.name] for field in fields(Picture)}
    made |= {name: tuple(record[name]) for name in ("axes", "start", "shape", "tile")}
    made |= {name: np.array([[float(value) for value in row] for row in record[name]]) for name in PLANES}
    return Picture(**made)


def _plain(value: Any) -> Any:
    """Numbers that JSON has no words for become strings, also in lists."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return number(value) if isinstance(value, float) else value
