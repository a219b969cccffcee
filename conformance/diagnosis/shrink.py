"""Shrinking: from a failing case to a small one that fails in the same way and as clearly.

Works on the case itself, part by part, rather than on the random draws behind it: every step stays a case that a person
can read. A shrunk case keeps the kind of its finding and an error far outside the budget, else a bug would come to look
like rounding. It is minimal in this sense: no single step of `simpler` leads to a case that still fails so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from conformance.cases.case import ArrayRecipe, Case, plainest
from conformance.cases.integers import plain_integers
from conformance.cases.options import plainer
from conformance.cases.shapes import KEY_LENGTHS, KV_HEADS, QUERY_HEADS, QUERY_LENGTHS
from conformance.cases.values import DOMAIN_RECIPES
from conformance.judge import Finding
from oracle.signature import ArraySpec

__all__ = ["CLEAR", "keeps", "shrink", "simpler"]

# A ratio this far above 1 cannot be taken for rounding, so nothing is gained by insisting on a larger one.
CLEAR = 1000.0

# Recipes from the plainest on, those of a row alike; the rest are less plain. With one seed for all, a query may equal a
# key, which then outweighs all others.
PLAIN_MASKS = (("full",), ("empty",), ("padding_right", "random"))
SEEDS = (0, 1, 2)

# Steps that keep a remainder.
TILES = (512, 256, 128, 64, 32, 16, 8)

# One part of a case and how to make it simpler: a function from the case to simpler ones, the boldest first.
Part = Callable[[Case], Iterator[Case]]

# The usual two calls on a case, and one more that shows what they leave.
FEWEST_CALLS = 3


def keeps(original: Finding, candidate: Finding | None) -> bool:
    """Whether a finding is the same kind as the original, with a ratio of the same order (or clear in itself)."""
    if candidate is None or candidate.kind != original.kind:
        return False
    return candidate.ratio >= min(max(original.ratio / 10, min(original.ratio, 10.0)), CLEAR)


def shrink(
    finding: Finding, examine: Callable[[Case], Finding | None], valid: Callable[[Case], bool], steps: int, seconds: float
) -> Finding:
    """Simplify the case of a finding until no single step keeps it, or the limits are reached.

    Args:
        finding: to start from; what is kept is measured against it, not against the last step, so that many small steps
            cannot slide to the threshold.
        examine: the finding of a case, if any.
        valid: whether a case may be tried (the implementation's restrictions).
        steps: cases to try at most; what makes the result the same on a slow machine and on a fast one.
        seconds: limit for cases that are slow in themselves.
    """
    best, until, tried = finding, time.monotonic() + seconds, {str(finding.case)}

    def better(part: Part) -> Finding | None:
        for candidate in map(Case.settled, part(best.case)):
            if len(tried) > steps or time.monotonic() > until:
                return None
            if str(candidate) not in tried and all(one.consistent and valid(one) for one in (candidate, *candidate.earlier)):
                tried.add(str(candidate))
                found = examine(candidate)
                if found is not None and found.case == candidate and keeps(finding, found):
                    return found
        return None

    progress = True
    while progress:
        progress = False
        for part in _parts(best.case):
            while (found := better(part)) is not None:
                best, progress = found, True
    return best


def simpler(case: Case) -> Iterator[Case]:
    """Cases one step simpler, the boldest first."""
    for part in _parts(case):
        yield from part(case)


def _parts(case: Case) -> Iterator[Part]:
    yield _cold
    yield _shorter_past
    yield from (partial(_without_option, name=name) for name in (*case.arrays, *case.options))
    yield _ungrouped
    yield from (partial(_smaller, name=name) for name in case.dims if name not in case.specification.derived)
    yield _shorter
    yield from (partial(_smaller_tunable, name=name) for name in case.tunables)
    yield from (partial(_plainer_array, name=name) for name in case.arrays)
    yield from (partial(_plainer_option, name=name) for name in case.options)


def _cold(case: Case) -> Iterator[Case]:
    if case.warm:
        yield replace(case, warm=False)


def _shorter_past(case: Case) -> Iterator[Case]:
    if case.calls > FEWEST_CALLS:
        yield replace(case, calls=FEWEST_CALLS)
    for index in range(len(case.earlier)):
        yield replace(case, earlier=case.earlier[:index] + case.earlier[index + 1 :])
    for name in case.dims if case.earlier else ():
        for smaller in _smaller(case, name):
            yield replace(smaller, earlier=tuple(replace(earlier, dims=smaller.dims) for earlier in case.earlier))


def _without_option(case: Case, name: str) -> Iterator[Case]:
    if name in case.options and name not in case.specification.required_keywords:
        yield replace(case, options=_without(case.options, name))
    elif name in case.arrays and name in {spec.name for spec in case.specification.signature.optional}:
        yield replace(case, arrays=_without(case.arrays, name))


def _ungrouped(case: Case) -> Iterator[Case]:
    dims = case.dims
    if {KV_HEADS, QUERY_HEADS} <= set(dims) and dims[QUERY_HEADS] != dims[KV_HEADS]:
        yield replace(case, dims={**dims, QUERY_HEADS: dims[KV_HEADS]})


def _shorter(case: Case) -> Iterator[Case]:
    """Both lengths by as much, which leaves causality and windows where they are."""
    dims = case.dims
    if {QUERY_LENGTHS, KEY_LENGTHS} <= set(dims):
        short = min(dims[QUERY_LENGTHS], dims[KEY_LENGTHS])
        for candidate in _lower(short, most_likely=2):
            less = short - candidate
            yield replace(case, dims={**dims, QUERY_LENGTHS: dims[QUERY_LENGTHS] - less, KEY_LENGTHS: dims[KEY_LENGTHS] - less})


def _smaller(case: Case, name: str) -> Iterator[Case]:
    dims = case.dims
    for candidate in _lower(dims[name], most_likely=1):
        together = {}
        if name == KV_HEADS and QUERY_HEADS in dims:
            together = {QUERY_HEADS: candidate * (dims[QUERY_HEADS] // dims[KV_HEADS])}
        yield replace(case, dims={**dims, name: candidate, **together})


def _smaller_tunable(case: Case, name: str) -> Iterator[Case]:
    for candidate in _lower(case.tunables[name], most_likely=1):
        yield replace(case, tunables={**case.tunables, name: candidate})


def _lower(size: int, most_likely: int) -> Iterator[int]:
    """Smaller sizes: a likely minimum, then nearer and nearer ones by halving the step or by whole tiles, then one less."""
    tried = set()
    nearer = (size // 2, size - size // 4, size - size // 8, *(size - tile for tile in TILES), size - 2, size - 1)
    for candidate in (most_likely, 2, 3, 4, *nearer):
        if 0 < candidate < size and candidate not in tried:
            tried.add(candidate)
            yield candidate


def _plainer_array(case: Case, name: str) -> Iterator[Case]:
    if name in case.arrays:
        spec = next(spec for spec in case.specification.signature.inputs if spec.name == name)
        method = case.specification
        may_be_zero = "zeros" in DOMAIN_RECIPES.get(method.domains.get(name, ""), ("zeros",))
        plain = ((plainest(method, spec), *["zeros"] * may_be_zero),)
        for recipe in _plainer(case.arrays[name], spec, plain_integers(method.domains[name]) if spec.kind == "int" else plain):
            yield replace(case, arrays={**case.arrays, name: recipe})


def _plainer(recipe: ArrayRecipe, spec: ArraySpec, plain: Sequence[tuple[str, ...]]) -> Iterator[ArrayRecipe]:
    ranks = PLAIN_MASKS if spec.kind == "bool" else plain
    names = [name for rank in takewhile(lambda rank: recipe.recipe not in rank, ranks) for name in rank]
    yield from (ArrayRecipe(name, seed, recipe.axes) for name in names for seed in SEEDS)
    if recipe.layout != "contiguous":
        yield replace(recipe, layout="contiguous")
    if recipe.garbage:
        yield replace(recipe, garbage="")
    if recipe.gain != 1:
        yield replace(recipe, gain=1.0)
    yield from (replace(recipe, recipe=name) for name in names)
    if recipe.axes is not None and len(recipe.axes) > 1 and spec.broadcast:
        yield replace(recipe, axes=recipe.axes[1:])
    yield from (replace(recipe, seed=seed) for seed in SEEDS if seed < recipe.seed)


def _plainer_option(case: Case, name: str) -> Iterator[Case]:
    if name in case.options:
        for value in plainer(case.specification.options[name], case.options[name]):
            yield replace(case, options={**case.options, name: value})


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}
