"""What experiments share: one benchmark for all claims about time, memory and errors of kernels: their ratios are of one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec

from conformance.benching.measuring import Step
from conformance.benching.run import Bench, Row, bench
from conformance.claims.declared import Claim

__all__ = ["Laboratory", "lacking"]

# Packages without which a backend's implementations cannot run.
PACKAGES = {"torch": "torch"}


@dataclass
class Laboratory:
    """Where experiments are made.

    Attributes:
        claims: that are looked into: what their benchmark is of.
        runs: measurements of each call.
        threads: that products may use; 0 for the backends' own choice.
        shrink: by which lengths are divided, to try everything out; the claims are about the lengths themselves.
        step: told of every measurement.
    """

    claims: Sequence[Claim]
    runs: int = 7
    threads: int = 0
    shrink: int = 1
    step: Step = field(default=lambda what, done, total: None)

    def length(self, claim: Claim) -> int:
        """The length that a claim is looked into at."""
        return max(int(claim.given["length"]) // self.shrink, 2)

    def row(self, implementation: str, length: int) -> Row | None:
        """What was measured of an implementation; None where it cannot run here."""
        return self._rows.get((implementation, length))

    @cached_property
    def _rows(self) -> dict[tuple[str, int], Row]:
        names = list(dict.fromkeys(name for claim in self.claims for name in _implementations(claim)))
        lengths = {self.length(claim) for claim in self.claims if _implementations(claim)}
        lengths |= {self.length(claim) // 2 for claim in self.claims if claim.experiment == "doubling"}
        if not names:
            return {}
        request = Bench(tuple(names), lengths=tuple(sorted(lengths)), runs=self.runs, threads=self.threads)
        return {(row.name, row.length): row for row in bench(request, self.step)}


def _implementations(claim: Claim) -> list[str]:
    """Those that a claim's experiment measures and that can run here."""
    named = [*claim.given.get("implementations", ()), *([claim.given["implementation"]] if "implementation" in claim.given else [])]
    return [name for name in named if find_spec(PACKAGES.get(name.partition(".")[0], "numpy")) is not None]


def lacking(claim: Claim) -> str:
    """What a claim needs that this machine lacks, in words; "" for nothing."""
    if "implementations" in claim.given and not _implementations(claim):
        return f"none of {', '.join(claim.given['implementations'])} can run here"
    wanted = float(claim.needs.get("memory", 0)) * 2**20
    if wanted and hasattr(os, "sysconf"):
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if there < wanted:
            return f"it needs {wanted / 2**20:.0f} MiB of memory, and this machine has {there / 2**20:.0f}"
    return ""
