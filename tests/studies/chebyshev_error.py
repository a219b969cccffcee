"""How far attention by a Chebyshev interpolant of exp is from softmax attention, degree by degree: writes docs/chebyshev.md.

python tests/studies/chebyshev_error.py
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from oracle import METHODS, attention
from oracle.polynomial import interpolated_exponential

ROOT = Path(__file__).parents[2]
DEGREES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
REACHES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)
QUERIES, KEYS, WIDTH, SEEDS = 32, 256, 64, 4


def arguments(reach: float, seed: int) -> dict[str, np.ndarray]:
    """Normal queries, keys and values, scaled so that the largest logit is just within the domain."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((1, 1, length, WIDTH)) for length in (QUERIES, KEYS, KEYS))
    largest = np.abs(q @ k.swapaxes(2, 3)).max() / np.sqrt(WIDTH)
    return {"q": q * (reach / largest), "k": k, "v": v}


def errors(reach: float, degree: int, domain: float, nodes: str = "roots") -> tuple[float, float]:
    """Largest relative error of a row of the output (in the 2-norm), and largest total variation between the weights."""
    worst = [0.0, 0.0]
    for seed in range(SEEDS):
        given = arguments(reach, seed)
        want = attention(**given)
        got = METHODS["chebyshev_attention"](**given, degree=degree, domain=(-domain, domain), nodes=nodes)
        relative = np.linalg.norm(got - want, axis=-1) / np.linalg.norm(want, axis=-1)
        one_hot = {**given, "v": np.eye(KEYS)[None, None]}
        weights = METHODS["chebyshev_attention"](**one_hot, degree=degree, domain=(-domain, domain), nodes=nodes)
        variation = np.abs(weights - attention(**one_hot)).sum(axis=-1) / 2
        worst = [max(a, float(b.max())) for a, b in zip(worst, (relative, variation), strict=True)]
    return worst[0], worst[1]


def percent(x: float) -> str:
    return f"{100 * x:.0f} %" if x >= 1 else f"{100 * x:.2g} %" if x >= 1e-6 else f"{100 * x:.0e} %"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def first_below(reach: float, limit: float) -> str:
    return next((str(degree) for degree in range(1, 60) if errors(reach, degree, reach)[0] < limit), "over 59")


def smallest_weight(degree: int, reach: float) -> float:
    """The smallest value of the interpolant on its domain, next to exp at the low end."""
    x = np.linspace(-reach, reach, 4001)
    return float(interpolated_exponential(x, degree, (-reach, reach)).min() / np.exp(-reach))


def main() -> None:
    heads = ["degree", *(f"logits within {reach:g}" for reach in REACHES)]
    outputs = [[str(degree), *(percent(errors(reach, degree, reach)[0]) for reach in REACHES)] for degree in DEGREES]
    weights = [[str(degree), *(percent(errors(reach, degree, reach)[1]) for reach in REACHES)] for degree in DEGREES]
    limits = [[f"below {percent(limit)}", *(first_below(reach, limit) for reach in REACHES)] for limit in (0.01, 1e-3)]
    clipped = [
        [f"{domain:g}", *(percent(errors(8.0, degree, domain)[0]) for degree in (5, 10, 20, 32))] for domain in (2.0, 4.0, 6.0, 8.0, 16.0)
    ]
    lowest = [[str(degree), *(f"{smallest_weight(degree, reach):.2g}" for reach in REACHES)] for degree in (2, 4, 6, 8, 10, 16)]
    nodes = [[str(degree), *(percent(errors(4.0, degree, 4.0, kind)[0]) for kind in ("roots", "extrema"))] for degree in (2, 4, 6, 8, 10)]
    page = PAGE.format(
        outputs=table(heads, outputs), weights=table(heads, weights), limits=table(["output error", *heads[1:]], limits),
        clipped=table(["domain", "degree 5", "degree 10", "degree 20", "degree 32"], clipped), lowest=table(heads, lowest),
        nodes=table(["degree", "roots", "extrema"], nodes),
        ten=percent(errors(4.0, 10, 4.0)[0]), queries=QUERIES, keys=KEYS, width=WIDTH, seeds=SEEDS,
    )  # fmt: skip
    (ROOT / "docs" / "chebyshev.md").write_text(page, encoding="utf-8")
    click.echo(page)


PAGE = """\
# How far Chebyshev attention is from softmax attention

Written by `python tests/studies/chebyshev_error.py`.

`chebyshev_attention` replaces exp by the polynomial of a degree that agrees with it at the Chebyshev points of a domain. That is another
method, with a meaning of its own, and a kernel is judged by that meaning, not by how near it is to a softmax. How near the method
is depends on the degree and on how far the logits reach: {queries} normal queries, {keys} normal keys and values of width {width},
scaled so that the largest of all logits is as large as the column says, the domain as wide; the worst row of {seeds} draws.

## Relative error of the output

{outputs}

The claim that degree 10 is enough for less than 1 % holds for logits within 4 ({ten}), and not for all: the degree that it takes
grows with the domain.

{limits}

## Total variation between the weights

{weights}

## A domain that does not fit

Logits within 8, in domains that cut them off or are too wide. Cutting off costs more than any degree can make good; a domain too wide costs
degrees.

{clipped}

## Where weights are negative

The smallest value of the interpolant over the exponential at the low end of the domain: below zero, keys that should weigh next to
nothing weigh less than nothing.

{lowest}

## Roots or extrema

The two kinds of Chebyshev points, logits within 4. They are near each other, but not the same method: a kernel declares which it means
(`--convention nodes=extrema`).

{nodes}
"""


if __name__ == "__main__":
    main()
