"""How far attention by a Chebyshev interpolant of exp is from softmax attention, by degree; docs/chebyshev.md has more of it."""

from __future__ import annotations

import numpy as np

from conformance.benching.measuring import Step
from conformance.benching.run import Bench
from conformance.benching.studies import Study, Table
from oracle import METHODS, attention

__all__ = ["chebyshev_error", "study"]

DEGREES = (2, 4, 6, 8, 10, 12, 16, 24)
REACHES = (1.0, 2.0, 4.0, 6.0, 8.0)
QUERIES, SEEDS = 32, 4


def chebyshev_error(degree: int, reach: float, keys: int = 256, width: int = 64, seeds: int = SEEDS) -> float:
    """Largest relative error of a row of the output in the 2-norm, for the right domain.

    Args:
        degree: of the polynomial.
        reach: the largest of all logits, to which normal queries are scaled, and half the width of the domain.
        keys: how many there are.
        width: of queries, keys and values.
        seeds: of how many draws the largest error is taken.
    """
    worst = 0.0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        q, k, v = (rng.standard_normal((1, 1, length, width)) for length in (QUERIES, keys, keys))
        q *= reach / (np.abs(q @ k.swapaxes(2, 3)).max() / np.sqrt(width))
        want = attention(q, k, v)
        got = METHODS["chebyshev_attention"](q, k, v, degree=degree, domain=(-reach, reach))
        worst = max(worst, float((np.linalg.norm(got - want, axis=-1) / np.linalg.norm(want, axis=-1)).max()))
    return worst


def _run(request: Bench, step: Step) -> Table:
    table: Table = []
    for number, degree in enumerate(DEGREES):
        errors = {f"logits within {reach:g}": chebyshev_error(degree, reach, min(request.lengths), request.width) for reach in REACHES}
        table.append({"degree": degree, **errors})
        step(f"degree {degree}", number + 1, len(DEGREES))
    return table


study = Study(
    _run, "largest relative error of a row of the output (2-norm) against softmax attention; the domain is as wide as the logits reach"
)
