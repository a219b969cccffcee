"""Hunts of correct kernels with fresh seeds for some minutes: every finding is a false alarm, unless the kernel is wrong.

    python tests/studies/soak.py --minutes 30

Right kernels of the corpus and the registered implementations, each in all of its dtypes, in random order. Exits with 1
and the replay line of each finding if there is any.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

import click
from corpus import RIGHT, kernels

from conformance.certificate import replay_line
from conformance.certify import Request, implementations
from conformance.hunting.hunt import Effort, Hunt
from conformance.isolation.sandbox import Sandbox

# A target as `Sandbox.load` takes it, with its method and backend where it is not registered, and a dtype.
Subject = tuple[str, str | None, str | None, str]


def subjects() -> list[Subject]:
    """Everything correct that there is."""
    corpus = [(kernel.target, kernel.method, kernel.backend, *kernel.dtypes) for kernel in kernels(*RIGHT, every_dtype=True)]
    found, _ = implementations(Request())
    return corpus + [(one.name, None, None, dtype) for one in found for dtype in one.dtypes]


def endless(rng: random.Random, of: list[Subject]) -> Iterator[Subject]:
    while True:
        yield from rng.sample(of, len(of))


@click.command(help=(__doc__ or "").replace("\n    python", "\n\n\b\n    python"))
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--examples", type=int, default=100, show_default=True, help="Cases of each hunt.")
@click.option("--seed", type=int, help="Of the whole soak; by default a new one each time.")
def main(minutes: float, examples: int, seed: int | None) -> None:
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    rng, until = random.Random(seed), time.monotonic() + 60 * minutes
    everything = subjects()
    click.echo(f"soak: seed {seed}, {len(everything)} kernels and dtypes")
    sandboxes = {backend: Sandbox() for backend in ("numpy", "torch")}
    cases: Counter[str] = Counter()
    worst: dict[str, tuple[float, str]] = {}
    hunts = findings = 0
    for target, method, backend, dtype in endless(rng, everything):
        if time.monotonic() > until:
            break
        # Kernels of one backend share a worker.
        sandbox = sandboxes[backend or target.partition(".")[0]]
        [implementation] = sandbox.load(target, method=method, backend=backend)
        result = Hunt(implementation, dtype, sandbox, Effort(examples, seed=rng.randrange(2**32), diagnose=False)).run()
        hunts, cases[dtype] = hunts + 1, cases[dtype] + result.examples
        worst[dtype] = max(worst.get(dtype, (0.0, "")), (result.worst_ratio, f"{implementation.target} {result.worst_case}"))
        for finding, _ in result.findings:
            findings += 1
            click.echo(f"FINDING {implementation.name} {dtype}: {finding.kind}, {finding.message}")
            click.echo(f"  {replay_line(implementation, finding)}")
    for sandbox in sandboxes.values():
        sandbox.__exit__()
    for dtype, (ratio, where) in worst.items():
        click.echo(f"{dtype}: {cases[dtype]} cases, worst error/budget {ratio:.2f} at {where}")
    click.echo(f"{sum(cases.values())} cases in {hunts} hunts, {findings} findings")
    sys.exit(findings > 0)


if __name__ == "__main__":
    main()
