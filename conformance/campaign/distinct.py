"""Which findings of a campaign are one: of the same source, of the same kind, by the same mistake or under the same condition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from conformance.certificate import Certificate, finding_json
from conformance.diagnosis.trigger import Trigger
from conformance.judge import Finding
from conformance.loading import parts

__all__ = ["Distinct", "distinct_findings"]


@dataclass
class Distinct:
    """One finding, however often it was made.

    Attributes:
        source: the file or module of the kernels.
        kind: of the finding.
        mistake: its explanation, or else when it happens; "" where neither is known.
        certificates: which it refutes, in order.
    """

    source: str
    kind: str
    mistake: str
    certificates: list[Certificate] = field(default_factory=list)

    @property
    def smallest(self) -> Certificate:
        """The one with the smallest case."""
        return min(self.certificates, key=lambda certificate: _finding(certificate)[0].case.size)

    @property
    def kernels(self) -> dict[str, list[str]]:
        """The dtypes in which each implementation has it, by name."""
        names: dict[str, list[str]] = {}
        for certificate in self.certificates:
            assert certificate.implementation is not None, "what has a finding has been loaded"
            names.setdefault(certificate.implementation.name, []).append(certificate.dtype)
        return names

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        smallest = self.smallest
        assert smallest.implementation is not None, "what has a finding has been loaded"
        finding, explained, trigger = _finding(smallest)
        return {
            "source": self.source, "kind": self.kind, "mistake": self.mistake, "kernels": self.kernels,
            "smallest": finding_json(smallest.implementation, finding, explained, trigger),
        }  # fmt: skip


def distinct_findings(certificates: Iterable[Certificate]) -> list[Distinct]:
    """The findings of many certificates, each once, in the order in which they come first."""
    found: dict[tuple[str, ...], Distinct] = {}
    for certificate in certificates:
        if certificate.implementation is None or certificate.result is None or not certificate.result.findings:
            continue
        finding, explained, trigger = _finding(certificate)
        source, _ = parts(certificate.implementation.target)
        mistake = _in_short(explained[0]) if explained else "" if trigger is None else trigger.text
        # Without either, two kernels may fail alike for different reasons.
        own = "" if mistake else certificate.implementation.name
        found.setdefault((source, finding.kind, mistake, own), Distinct(source, finding.kind, mistake)).certificates.append(certificate)
    return list(found.values())


def _in_short(explanation: str) -> str:
    """An explanation without what differs from dtype to dtype: what to declare, and numbers."""
    return explanation.partition("; ")[0].partition(", but not ")[0]


def _finding(certificate: Certificate) -> tuple[Finding, list[str], Trigger | None]:
    assert certificate.result is not None, "what has a finding has been hunted"
    finding, explained = certificate.result.findings[0]
    return finding, explained, certificate.result.trigger
