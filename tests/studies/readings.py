"""How far the budgets of the two readings are from real float32 errors, by length, for every method: writes docs/readings.md.

    python tests/studies/readings.py

The kernel of a method is the first NumPy implementation that is registered for it. Its arrays are the plainest that cases are made
of, one head of width 16. Takes a few minutes; what would need more than a gigabyte of samples is left out.
"""

from __future__ import annotations

import pkgutil
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random

import click
import numpy as np

import implementations.numpy
from conformance.cases.case import ArrayRecipe, Case
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.cases.vocabulary import vocabulary
from conformance.registry import Implementation, registered
from oracle import METHODS
from oracle.conditions import evaluate
from oracle.readings import perturbed, running_bound
from oracle.readings.contract import CONTRACTS
from oracle.readings.perturbed import STACK

PAGE = Path(__file__).parents[2] / "docs" / "readings.md"
LENGTHS = (16, 64, 256, 1024, 4096)
WIDTH = 16
BLOCK = 16  # places of a block of a cache
QUERIES = 64  # at most, where a method does not want as many queries as keys
LARGEST = 6_000_000  # elements of the largest array of a sample
FLOAT32 = CONTRACTS["float32"]
TEXT = """# Budgets and real errors

Written by `python tests/studies/readings.py`.
Measured with NumPy {numpy}, Python {python}: the first registered NumPy kernel of each method in float32, one head of width {width},
plain arrays; `-` where the samples would take more than a gigabyte.

A budget is how far a kernel may be from the exact value. Two readings of the specification give one:

* the **running bound** adds up the absolute values of all rounding errors on the way. It is a bound, save for the
  probability that independent errors conspire, and it is the budget of almost all methods;
* the **perturbed reading** runs the specification on {samples} samples, each result with a random error of the size of its
  rounding, and takes four standard deviations of what comes out (or the largest deviation among samples whose errors repeat
  themselves). It sees cancellation and contraction, but it is an estimate.

Where a method's recurrence contracts (`delta_rule`, `gated_delta_rule`) the budget is the smaller of both, element by element: the
running bound adds what the state forgets, and grows without end. A certificate's field `budget` says which reading was used.
The perturbed reading of other methods is here for comparison alone. It knows the operations of the specification, not those of
other kernels, such as chunks of a decaying state, that some running bounds allow for, and no freedom of meaning, such as the
weight of a Performer's eps under a stabiliser: there it may be exceeded.

A number is the largest error of the kernel over all elements, relative to their budget: it must stay below 1, and the
further below it is, the smaller the mistakes are that hide in the budget.

## Error over running bound

{bound}

## Error over perturbed budget

{perturbed}

## Running bound over perturbed budget, the median of all elements

{both}
"""


def kernels() -> Iterator[Implementation]:
    """The first NumPy implementation of every method, in the order of the catalogue."""
    for module in pkgutil.iter_modules(implementations.numpy.__path__, "implementations.numpy."):
        import_module(module.name)
    for method in METHODS:
        found = [one.implementation for one in registered().values() if one.implementation.method == method]
        if found and METHODS[method].coding is None:  # a code is exact or a quantum off, which is no error to compare
            yield min(found, key=lambda implementation: len(implementation.tunables))


def plain_case(implementation: Implementation, length: int, seed: int) -> Case:
    """The plainest call of that length: required arrays and options only, which a drawn case fits to each other."""
    method = METHODS[implementation.method]
    drawn = random_case(Random(seed), implementation, "float32", STAGES[0])
    sizes = {"b": 1, "h": 1, "g": 1, "l": length, "s": length, "d": WIDTH, "e": WIDTH, "edges": 2, "block_size": BLOCK}
    sizes |= dict.fromkeys(("num_blocks", "max_blocks"), -(-length // BLOCK))
    if "s" in drawn.dims and "l == s" not in method.where:
        sizes["l"] = min(length, QUERIES)
    dims = {letter: sizes.get(letter, size) for letter, size in drawn.dims.items()}
    arrays = {}
    for number, spec in enumerate(spec for spec in method.signature.inputs if not spec.optional):
        recipe, gain = drawn.arrays[spec.name].recipe, 1.0
        if spec.kind in ("float", "statistic"):
            recipes, gains = vocabulary(method, spec)
            recipe, gain = recipes[0], gains[0]
        arrays[spec.name] = ArrayRecipe(recipe, number, None, gain)
    options = {name: value for name, value in drawn.options.items() if name in method.required_keywords}
    return replace(drawn, dims=dims, arrays=arrays, options=options, tunables={}, warm=False).settled()


def telling_seed(implementation: Implementation) -> int | None:
    """The first whose options make the kernel round at all: a window of nothing but the token itself does not, nor does a copy."""
    return next((seed for seed in range(100) if ratios(implementation, LENGTHS[1], seed)[0] > 0), None)


def ratios(implementation: Implementation, length: int, seed: int) -> tuple[float, float | None, float | None]:
    """Largest error over the running bound and over the perturbed budget, and the median of the one over the other."""
    case = plain_case(implementation, length, seed)
    method, arguments = case.specification, case.arguments()
    outputs = registered()[implementation.name].function(**arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    bounds = running_bound(method, arguments, FLOAT32)
    spreads = perturbed(method, arguments, FLOAT32) if evaluate(method.cost, case.facts()) <= LARGEST else None
    worst, worst_spread, apart = 0.0, 0.0, []
    for number, (output, bound) in enumerate(zip(outputs, bounds, strict=False)):
        error = np.abs(output - bound.value)
        worst = max(worst, largest(error, bound.full_error))
        if spreads is not None:
            worst_spread = max(worst_spread, largest(error, spreads[number][1]))
            with np.errstate(all="ignore"):
                apart.append((bound.full_error / spreads[number][1]).ravel())
    if spreads is None:
        return worst, None, None
    return worst, worst_spread, float(np.nanmedian(np.concatenate(apart)))


def largest(error: np.ndarray, allowed: np.ndarray) -> float:
    """The largest quotient; nothing where there is no error, or where anything is allowed."""
    with np.errstate(all="ignore"):
        quotient = np.where((error == 0) | (allowed == np.inf), 0.0, error / allowed)
    return float(quotient.max(initial=0.0))


def table(head: str, rows: dict[str, list[float | None]]) -> str:
    """A Markdown table with a column for each length."""
    lines = [[head, *map(str, LENGTHS)], ["---", *["---:"] * len(LENGTHS)]]
    lines += [[name, *("-" if x is None else f"{x:.2g}" for x in row)] for name, row in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@click.command()
@click.option("--method", "only", multiple=True, help="This method alone, to stdout.")
def main(only: tuple[str, ...]) -> None:
    """Measure all methods, or some."""
    columns: tuple[dict[str, list[float | None]], ...] = ({}, {}, {})
    for implementation in kernels():
        if only and implementation.method not in only:
            continue
        seed = telling_seed(implementation)
        if seed is None:
            continue
        measured = [ratios(implementation, length, seed) for length in LENGTHS]
        click.echo(f"{implementation.name}: {measured}", err=True)
        for rows, column in zip(columns, zip(*measured, strict=True), strict=True):
            rows[f"`{implementation.method}`, {implementation.name}"] = list(column)
    bound, spread, both = (table("method, kernel", rows) for rows in columns)
    text = TEXT.format(
        numpy=np.__version__, python=platform.python_version(), width=WIDTH, bound=bound, perturbed=spread, both=both, samples=STACK - 1
    )
    if only:
        click.echo(text[text.index("## Error over running") :])
    else:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
