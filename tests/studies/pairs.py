"""Which features the cases of default hunts join in pairs: the table of docs/verdicts.md.

    python tests/studies/pairs.py [--seed 0 --seed 1 --seed 2]

The counts are those of certificates (`coverage`). A pair is possible unless the dimensions, or what the features mean, rule
it out. Exits with 1 when a possible pair was met by no case of some hunt.
"""

from __future__ import annotations

import sys
from collections import Counter
from itertools import combinations
from random import Random
from statistics import median

import click
from mutation_score import contradict, table

from conformance.cases.features import features
from conformance.cases.shapes import stages
from conformance.cases.strategies import random_case
from conformance.hunting.hunt import Effort, Hunt
from conformance.isolation.sandbox import Sandbox
from conformance.registry import Implementation

# Registered kernels that take every option of their method and have tiles.
KERNELS = ("numpy.flash2", "numpy.flash2_with_lse")

# Without keys there is nothing that garbage could lie in.
IMPOSSIBLE = {frozenset(("no keys", "garbage in hidden keys"))}


def all_features(implementation: Implementation) -> list[str]:
    """The names of the features that a case of the implementation may have."""
    rng = Random("names")
    found = {
        name for stage in stages("float32") for _ in range(400) for name in features(random_case(rng, implementation, "float32", stage))
    }
    return sorted(found)


def possible(names: list[str]) -> list[tuple[str, str]]:
    """The pairs of features that some case could have."""
    return [pair for pair in combinations(names, 2) if not contradict(*pair) and frozenset(pair) not in IMPOSSIBLE]


def count(coverage: Counter[str], one: str, other: str) -> int:
    """The cases that have both features, in whichever order they are named."""
    return coverage[f"{one} x {other}"] + coverage[f"{other} x {one}"]


@click.command(help=(__doc__ or "").replace("\n    python", "\n\n\b\n    python"))
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--dtype", default="float32", show_default=True)
def main(seeds: tuple[int, ...], dtype: str) -> None:
    rows: list[list[object]] = []
    missed = []
    for name in KERNELS:
        for seed in seeds:
            with Sandbox() as sandbox:
                [implementation] = sandbox.load(name)
                result = Hunt(implementation, dtype, sandbox, Effort(seed=seed, diagnose=False)).run()
            pairs = possible(all_features(implementation))
            counts = {pair: count(result.coverage, *pair) for pair in pairs}
            options = {pair: number for pair, number in counts.items() if set(pair) <= set(implementation.options)}
            fewest = min(options, key=lambda pair: options[pair])
            rows.append([
                f"`{implementation.method}`", seed, result.examples, f"{sum(map(bool, options.values()))} of {len(options)}",
                f"{options[fewest]} ({' x '.join(fewest)})", f"{sum(map(bool, counts.values()))} of {len(counts)}",
                median(counts.values()), sum(number < 5 for number in counts.values()),
            ])  # fmt: skip
            missed += [f"{implementation.method} seed {seed}: {' x '.join(pair)}" for pair, number in counts.items() if not number]
    head = ["method", "seed", "cases", "pairs of options", "fewest cases of one", "pairs of all features", "cases of a pair, median",
            "pairs in fewer than 5 cases"]  # fmt: skip
    click.echo(table(head, rows))
    for line in missed:
        click.echo(f"missed: {line}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
