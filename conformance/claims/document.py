"""The table of claims as a document: docs/claims.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from conformance.certificate import environment
from conformance.claims.declared import Claim
from conformance.claims.experiments import Measurement
from conformance.claims.verdicts import Examined

__all__ = ["document", "figure_of", "markdown", "shown"]

COMMAND = "attest claims --markdown docs/claims.md"


def document(examined: Sequence[Examined]) -> dict[str, Any]:
    """The JSON document."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "schema": 1,
        "claims": [one.to_json() for one in examined],
        "environment": {**environment(), "machine": platform.machine(), "load": load},
    }


def figure_of(claim: Claim) -> str:
    """The published figure, in words where there is none of its own."""
    words = {"equals": "", "about": "about "}.get(claim.means, f"{claim.means} ")
    return f"{words}{claim.figure} {claim.unit}".strip() if claim.figure else "a formula"


def shown(claim: Claim, one: Measurement) -> str:
    """A number of ours, with what it is of."""
    if one.value is None:
        return f"{one.what}: {one.why}"
    against = f" against {one.figure}" if one.figure else ""
    return f"{one.what}: {one.value:.4g} {one.unit or claim.unit}".strip() + against


def markdown(examined: Sequence[Examined], runs: int, threads: int) -> str:
    """The page.

    Args:
        examined: what was found.
        runs: measurements of each call.
        threads: that kernels could use; 0 for their own choice.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    facts = environment()
    lines = [
        HEAD.format(
            command=COMMAND,
            processors=facts["processors"],
            platform=facts["platform"],
            load=load,
            runs=runs,
            threads=threads or "as many as there are",
        )
    ]
    lines += ["| claim | published | here | verdict |", "|---|---|---|---|"]
    for one in examined:
        deciding = [shown(one.claim, each) for each, agrees in zip(one.measurements, one.agreeing, strict=True) if agrees is not None]
        here = "; ".join(deciding) or one.reason
        lines.append(f"| [{one.claim.name}](#{one.claim.name}) | {figure_of(one.claim)} | {here} | {one.verdict} |")
    lines.append("")
    for one in examined:
        lines += [f"## {one.claim.name}", "", f"{one.claim.statement}. {one.verdict.capitalize()}.", ""]
        lines += [f"- source: {one.claim.source}", f"- formula: {one.claim.formula}"]
        for each, agrees in zip(one.measurements, one.agreeing, strict=True):
            word = {True: "agrees", False: "does not agree", None: "beside it"}[agrees]
            lines.append(f"- {word}: {shown(one.claim, each)}")
        lines += [f"- cannot run here: {one.reason}"] if one.reason else []
        lines += ["", one.claim.remark] if one.claim.remark else []
        lines.append("")
    return "\n".join(lines).rstrip()


HEAD = """\
# Published figures, looked into

Written by `{command}` on {platform}, {processors} processors, load {load:.1f} at the end,
with {runs} measurements of each call, threads: {threads}. `conformance/claims/claims.toml` declares the claims; `attest claims NAME` looks
into one (`attest claims 'memory-*'` into several), `--json` keeps every number.

A figure is meant as precisely as it is printed: 0.342 is what rounds to 0.342; "about 57" is at least what rounds to 60 with one digit;
"times as fast" is at least. Times are ratios of medians within one run, beside which stands how far the measurements of the kernel spread
(half the distance of their quartiles): those of a busy machine say little, so run it on a quiet one.
In part: some of the numbers agree.

Which figures disagree with each other or with theory is said below: above all the errors of sparse and linear attention, which
standard normal data cannot give; a speed-up by drafts that is never above 1; an eightfold smaller cache that counts keys alone;
and megabytes of two kinds in one list.
"""
