"""The cases that a hunt judges by invariants: small ones of all of them, then lengths that are too large for the oracle.

Small ones add to what the oracle finds only where they go beyond its cases (NaN in another row, say): two calls that it
judges cannot disagree by more than their two budgets. So they get a small share of a hunt, and the long ones another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from math import isqrt, prod
from random import Random
from typing import TYPE_CHECKING

from conformance.cases.case import ArrayRecipe, Case
from conformance.cases.masks import MASK_RECIPES
from conformance.cases.shapes import BATCHES, KEY_LENGTHS, QUERY_LENGTHS, STAGES
from conformance.cases.strategies import random_case
from conformance.invariants import DENSE, Invariant, get_invariant, invariants_for
from conformance.invariants.calls import PARTS
from conformance.invariants.check import speaks_of

if TYPE_CHECKING:
    from conformance.examine import Examiner
    from conformance.registry import Implementation

__all__ = ["invariant_cases"]

# Examples of a hunt for each small case that it judges by an invariant.
EXAMPLES_PER_INVARIANT = 20

# Draws until one fits an invariant and the implementation's restrictions.
ATTEMPTS = 8

# Lq * Lk of a hunt's longest call, for each of its examples.
ELEMENTS_PER_EXAMPLE = 1000

# A length beyond 16 bits, where positions and offsets in narrow integers wrap, after one that shows how long it will take.
FEW, NEAR, FAR = 3, 2049, 70_001
SHORT_SQUARE, LONGEST_SQUARE = 513, 16_384

# A long call may take this share of a hunt's time, judging by the shorter one.
LONGEST_SHARE = 0.01

# A gain of long queries at which a few keys hold most of the weight, so that outputs are as large as values.
LONG_GAIN = 4.0

# Smaller sizes say little: the only key is read whatever else goes wrong.
FEWEST = {BATCHES: 1, KEY_LENGTHS: 5, PARTS: 3}

LONG_TILES = {"block": 256, "count": 4}


def invariant_cases(examiner: Examiner, examples: int, seconds: float, seed: int) -> Iterator[Case]:
    """Cases that name an invariant.

    Args:
        examiner: of the hunt, which examines each case before it asks for the next.
        examples, seconds, seed: the effort of the hunt.
    """
    implementation = examiner.implementation
    rng, catalogue = Random(f"{seed} {implementation.method} invariants"), invariants_for(implementation.method)
    for index in range(examples // EXAMPLES_PER_INVARIANT if catalogue else 0):
        for _ in range(ATTEMPTS):
            case = _aimed(catalogue[index % len(catalogue)], random_case(rng, implementation, examiner.dtype, STAGES[0]))
            if _fits(case, examiner):
                yield case
                break
    if implementation.method in DENSE:
        yield from _long_cases(examiner, examples * ELEMENTS_PER_EXAMPLE, seconds * LONGEST_SHARE)


def _aimed(invariant: Invariant, case: Case) -> Case:
    """The case, made one that the invariant speaks of, in which something can go wrong.

    With moderate numbers, for which the bound on the error is tight, and with several keys that differ from each other.
    """
    arrays = {name: _plain_recipe(recipe) for name, recipe in case.arrays.items()}
    dims = {letter: size if letter not in FEWEST or size >= FEWEST[letter] else size + FEWEST[letter] for letter, size in case.dims.items()}
    return replace(invariant.aim(replace(case, dims=dims, arrays=arrays, warm=False)), invariant=invariant.name)


def _plain_recipe(recipe: ArrayRecipe) -> ArrayRecipe:
    name = recipe.recipe if recipe.recipe in {*MASK_RECIPES, "empty_parts"} else "normal"
    return replace(recipe, recipe=name, gain=1.0, garbage="", layout=recipe.layout.replace("expanded_rows", "strided"))


def _fits(case: Case, examiner: Examiner) -> bool:
    implementation = examiner.implementation
    known = set(case.options) <= set(implementation.options)
    return known and implementation.admits(case.facts()) and speaks_of(case, implementation, examiner.judge.contract)


def _long_cases(examiner: Examiner, elements: int, seconds: float) -> Iterator[Case]:
    """Few queries on many keys, many queries on few keys, and as many of both as the effort allows."""
    side = min(isqrt(elements), LONGEST_SQUARE)
    for shorter, longer, names in (
        ((FEW, NEAR), (FEW, FAR), ("selection",)),
        ((NEAR, FEW), (FAR, FEW), ("rows-alone",)),
        ((SHORT_SQUARE, SHORT_SQUARE), (side, side), ("selection", "rows-alone")),
    ):
        if prod(longer) > elements or longer <= shorter:
            continue
        started = time.perf_counter()
        yield from _at(shorter, names[:1], examiner)
        if (time.perf_counter() - started) * prod(longer) / prod(shorter) <= seconds:
            yield from _at(longer, names, examiner)


def _at(lengths: tuple[int, int], names: tuple[str, ...], examiner: Examiner) -> Iterator[Case]:
    implementation = examiner.implementation
    for name in names:
        invariant = get_invariant(name, implementation.method)
        case = replace(invariant.aim(_plain(lengths, examiner)), invariant=name)
        if lengths[0] == lengths[1] and "causal" in implementation.options:
            case = replace(case, options={"causal": True})
        if implementation.admits(case.facts()):
            yield case


def _plain(lengths: tuple[int, int], examiner: Examiner) -> Case:
    queries, keys = lengths
    arrays = {"q": ArrayRecipe("normal", gain=LONG_GAIN), "k": ArrayRecipe("normal", 1), "v": ArrayRecipe("normal", 2)}
    dims = {"b": 1, "h": 1, QUERY_LENGTHS: queries, "d": 8, "g": 1, KEY_LENGTHS: keys, "e": 8}
    return Case(examiner.implementation.method, examiner.dtype, dims, arrays, {}, _tunables(examiner.implementation))


def _tunables(implementation: Implementation) -> dict[str, int]:
    return {name: LONG_TILES.get(tunable.kind) or tunable.choices[0] for name, tunable in implementation.tunables.items()}
