"""The process that measures, seen from outside: what to call, and what it says of every call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.errors import UsageError

__all__ = ["Kernel", "Step", "measured"]

# What was done, as which step of how many.
Step = Callable[[str, int, int], None]

# A call that takes longer is not repeated.
LONGEST_SECONDS = 20.0


@dataclass(frozen=True)
class Kernel:
    """What is called, under a name of the run's: the same target may take part under several."""

    name: str
    target: str
    method: str
    backend: str


def measured(
    kernels: Sequence[Kernel], rounds: Sequence[Mapping[str, str]], *, runs: int, threads: int = 0, device: str = "cpu",
    outputs: str | None = None, step: Step = lambda what, done, total: None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Call kernels in turns, in one process, in every turn those of all rounds.

    Args:
        kernels: all that take part.
        rounds: for each, the line of the case of every kernel by name.
        runs: measurements of each.
        threads: that the backends' products may use; 0 for their own choice.
        device: where torch runs.
        outputs: a folder for the first output of every call; None to keep none.
        step: told what was done, as which step of how many.

    Returns:
        Of every call, in the order of the rounds: ``name``, ``case``, ``seconds`` of every measurement, ``first_seconds``, ``peak_bytes``,
        ``output`` (a file), and ``error`` where there are no numbers.

    Raises:
        UsageError: the process died.
    """
    asked = {
        "targets": [asdict(kernel) for kernel in kernels], "lengths": rounds, "runs": runs, "threads": threads, "device": device,
        "longest": LONGEST_SECONDS, "outputs": outputs,
    }  # fmt: skip
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    variables = {**os.environ, **(limits if threads else {}), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", "conformance.benching.worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, env=variables, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None, "all are pipes"
        process.stdin.write(json.dumps(asked))
        process.stdin.close()
        done, total = 0, sum(map(len, rounds)) + runs * len(rounds)
        for line in process.stdout:
            told = json.loads(line)
            if "step" in told:
                step(told["step"], done := done + 1, total)
            else:
                yield told
        said = process.stderr.read().strip().splitlines()
    if process.returncode:
        raise UsageError(f"the measuring process ended with status {process.returncode}: {said[-1] if said else 'it said nothing'}")
