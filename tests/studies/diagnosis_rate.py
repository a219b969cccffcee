"""How often a finding is explained: hunts over a sample of the wrong kernels, with diagnosis.

    nice -n 10 python tests/studies/diagnosis_rate.py [--every 4] [--offset 0] [--folder numpy_wrong] [--json FILE]

Prints a line for each kernel, then how many findings got an explanation or a trigger, and the seconds that shrinking and
diagnosis took. Rates of a sample are for reading, not for tuning to: look at the kernels with neither.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tomllib
from pathlib import Path
from typing import Any

from click import echo

from conformance.hunting.hunt import Effort, Hunt
from conformance.isolation.sandbox import Sandbox

CORPUS = Path(__file__).parents[1] / "mutants"


def sample(folder: str, every: int, offset: int) -> list[dict[str, Any]]:
    """Every so manieth kernel of a folder of the corpus."""
    entries = tomllib.loads((CORPUS / folder / "corpus.toml").read_text())["kernel"]
    return [{**entry, "folder": folder} for entry in entries[offset::every]]


def study(entry: dict[str, Any], sandbox: Sandbox) -> dict[str, Any]:
    """The hunt of one kernel, as a record."""
    target = f"{CORPUS / entry['folder'] / entry['file']}:{entry['function']}"
    [implementation] = sandbox.load(target, method=entry["method"], backend=entry["backend"])
    started = time.process_time()
    for dtype in entry["dtypes"]:
        result = Hunt(implementation, dtype, sandbox, Effort()).run()
        if result.verdict == "refuted":
            break
    record = {"kernel": f"{entry['folder']}/{entry['file']}", "mistake": entry["mistake"], "verdict": result.verdict}
    for finding, explained in result.findings:
        trigger = result.trigger
        assert result.seconds_to_finding is not None, "a finding has a time"
        record |= {
            "kind": finding.kind, "case": str(finding.case), "explained": explained, "ratio": str(finding.ratio),
            "trigger": None if trigger is None else trigger.to_json(), "seconds": result.seconds - result.seconds_to_finding,
            "cpu": time.process_time() - started,
        }  # fmt: skip
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--folder", action="append", choices=("numpy_wrong", "torch_wrong"))
    parser.add_argument("--only", default="", help="part of a file's name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    records = []
    with Sandbox() as sandbox:
        for folder in arguments.folder or ("numpy_wrong", "torch_wrong"):
            for entry in sample(folder, arguments.every, arguments.offset):
                if arguments.only in entry["file"]:
                    records.append(study(entry, sandbox))
                    echo(json.dumps(records[-1], indent=1))
    refuted = [record for record in records if record["verdict"] == "refuted"]
    seconds = sorted(record["seconds"] for record in refuted)
    for name in ("explained", "trigger"):
        echo(f"{name}: {sum(bool(record[name]) for record in refuted)} of {len(refuted)}")
    echo(f"neither: {sum(not (record['explained'] or record['trigger']) for record in refuted)} of {len(refuted)}")
    own = sorted(record["cpu"] for record in refuted)
    echo(f"seconds of the judge's own, hunt included: median {statistics.median(own):.2f}, p90 {own[int(len(own) * 0.9)]:.2f}")
    echo(f"seconds after the finding: median {statistics.median(seconds):.2f}, p90 {seconds[int(len(seconds) * 0.9)]:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
