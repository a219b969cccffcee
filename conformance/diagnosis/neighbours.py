"""Probes: cases that differ from a given one in a single respect, to learn on what a failure depends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, combinations, zip_longest
from typing import Any

from conformance.cases.case import ArrayRecipe, Case, plainest
from conformance.cases.codes import CODE_RECIPES
from conformance.cases.integers import recipes_of_integers
from conformance.cases.layouts import LAYOUTS
from conformance.cases.options import others
from conformance.cases.shapes import BATCHES, KEY_LENGTHS, KV_HEADS, QUERY_HEADS, QUERY_LENGTHS, WIDTH_LETTERS
from conformance.cases.values import DOMAIN_RECIPES
from conformance.registry import Implementation, Tunable
from oracle.catalogue import PLAIN_DTYPES

__all__ = ["neighbours"]

# A probe is not much more work than the case that it starts from, or than a case of a few tiles.
LARGEST_PROBE = 70_000

COUNTS = (1, 2, 3, 4, 8, 9)
GROUPS = (1, 2, 3, 4, 5, 6, 7, 8)
TUNED = (1, 2, 3, 4, 16, 64)
TURNS = {QUERY_LENGTHS: 3, KEY_LENGTHS: 3, **dict.fromkeys(WIDTH_LETTERS, 2)}
WEIGHED = ("v", "outs")  # of zeros, whatever weighs them, nothing shows
FLOATS = ("normal", "zeros", "ones")
MASKS = ("full", "random", "empty", "single_key", "late", "empty_rows", "padding_right")
AXES: tuple[tuple[str, ...] | None, ...] = (None, ("l", "s"), ("s",), ("h", "l", "s"), ("b", "1", "1", "s"), ("b", "1", "l", "s"))


def neighbours(case: Case, implementation: Implementation) -> Iterator[Case]:
    """Cases that differ in one respect, those that tell most first: each respect has its turns, lengths more of them."""
    respects = [
        (2, _options(case, implementation)),
        *((TURNS.get(letter, 1), _sizes(case, letter)) for letter in case.dims if letter not in case.specification.derived),
        *((1, _layouts(case, name)) for name in case.arrays),
        (2, _groups(case)),
        (1, _both_lengths(case)),
        (1, _both_of_one_size(case)),
        *((1, _values(case, name)) for name in case.arrays),
        *((1, _tunables(case, name, implementation.tunables[name])) for name in case.tunables),
        (1, iter([replace(case, warm=not case.warm)])),
    ]
    turns = chain.from_iterable(zip_longest(*(respect for count, respect in respects for respect in [respect] * count)))
    limit = max(4 * case.size, LARGEST_PROBE)
    probes = (probe.settled() for probe in turns if probe is not None)
    return (probe for probe in probes if probe.size <= limit and probe.consistent)


def _options(case: Case, implementation: Implementation) -> Iterator[Case]:
    method = case.specification
    optional = {spec.name: spec for spec in method.signature.optional}
    for name in case.options:
        if name not in method.required_keywords:
            yield replace(case, options=_without(case.options, name))
    for name in case.arrays:
        if name in optional:
            yield replace(case, arrays=_without(case.arrays, name))
    for name in implementation.options:
        if name in optional and name not in case.arrays:
            yield replace(case, arrays={**case.arrays, name: ArrayRecipe(plainest(method, optional[name]), 1)})
        elif name in method.options and name not in case.options:
            other = next(value for value in others(method.options[name]) if value != method.default(name))
            yield replace(case, options={**case.options, name: other})
    for name, value in case.options.items():
        for other in others(method.options[name], value):
            if other not in (value, method.default(name)):
                yield replace(case, options={**case.options, name: other})


def _sizes(case: Case, letter: str) -> Iterator[Case]:
    size = case.dims[letter]
    for other in dict.fromkeys(_other_sizes(letter, size)):
        if other != size and (other > 0 or (other == 0 and letter in (BATCHES, QUERY_LENGTHS, KEY_LENGTHS))):
            dims = {**case.dims, letter: other}
            if letter == KV_HEADS and QUERY_HEADS in dims:
                dims[QUERY_HEADS] = other * (case.dims[QUERY_HEADS] // size)
            elif letter == QUERY_HEADS and KV_HEADS in dims:
                continue  # changed as a group, or with the key/value heads
            yield replace(case, dims=dims)


def _other_sizes(letter: str, size: int) -> Iterator[int]:
    if letter in (QUERY_LENGTHS, KEY_LENGTHS):
        yield from (size + 1, size - 1, 1, size + 64, size + 2, 2 * size, 2, size + 16, size + 128, size + 8, 3, size + 4, 0, size // 2)
        yield from (size + 32, size - 64, size + 3, size + 256, size + 512)
    elif letter in WIDTH_LETTERS:
        yield from (size + 1, size - 1, 1, 2, size + 8, 3, 4, 8, 2 * size, 16, 64, size + 2, 128, 40)
    else:
        yield from COUNTS


def _groups(case: Case) -> Iterator[Case]:
    if {KV_HEADS, QUERY_HEADS} <= set(case.dims):
        heads = case.dims[KV_HEADS]
        for group in GROUPS:
            if group * heads != case.dims[QUERY_HEADS]:
                yield replace(case, dims={**case.dims, QUERY_HEADS: group * heads})


def _both_lengths(case: Case) -> Iterator[Case]:
    if {QUERY_LENGTHS, KEY_LENGTHS} <= set(case.dims):
        queries, keys = case.dims[QUERY_LENGTHS], case.dims[KEY_LENGTHS]
        for more in (1, 2, 16, -1, 7, 63):
            if min(queries, keys) + more > 0:
                yield replace(case, dims={**case.dims, QUERY_LENGTHS: queries + more, KEY_LENGTHS: keys + more})
        for both in (keys, queries, 3, 17, 65):
            yield replace(case, dims={**case.dims, QUERY_LENGTHS: both, KEY_LENGTHS: both})


def _both_of_one_size(case: Case) -> Iterator[Case]:
    for one, other in combinations(case.dims, 2):
        size = case.dims[one]
        if size == case.dims[other] > 1 and {one, other} != {QUERY_LENGTHS, KEY_LENGTHS}:
            for more in (1, 2):
                dims = {**case.dims, one: size + more, other: size + more}
                if QUERY_HEADS in (one, other) and KV_HEADS in dims:
                    dims[KV_HEADS] = size + more
                yield replace(case, dims=dims)


def _layouts(case: Case, name: str) -> Iterator[Case]:
    for layout in LAYOUTS:
        if layout != case.arrays[name].layout:
            yield _with(case, name, layout=layout)


def _values(case: Case, name: str) -> Iterator[Case]:
    recipe, spec = case.arrays[name], next(spec for spec in case.specification.signature.inputs if spec.name == name)
    yield _with(case, name, seed=recipe.seed + 1)
    if recipe.garbage:
        yield _with(case, name, garbage="")
    method = case.specification
    domain = method.domains.get(name, "")
    of_kind = {"bool": MASKS, "code": tuple(CODE_RECIPES), "int": recipes_of_integers(domain) if spec.kind == "int" else ()}
    recipes = of_kind.get(spec.kind) or DOMAIN_RECIPES.get(domain, FLOATS)
    for other in recipes:
        if other != recipe.recipe and not (other == "zeros" and name in WEIGHED):
            yield _with(case, name, recipe=other)
    if spec.kind not in (*PLAIN_DTYPES, "code") and name not in method.domains:
        for gain in dict.fromkeys((1.0, recipe.gain * 10, recipe.gain / 10, recipe.gain / 2)):
            if gain != recipe.gain:
                yield _with(case, name, gain=gain)
    if spec.broadcast:
        for axes in AXES:
            if axes != recipe.axes and set(axes or ()) <= {*spec.dims, "1"}:
                yield _with(case, name, axes=axes)
    yield _with(case, name, seed=recipe.seed + 2)


def _tunables(case: Case, name: str, tunable: Tunable) -> Iterator[Case]:
    for value in tunable.choices or TUNED:
        if value != case.tunables[name]:
            yield replace(case, tunables={**case.tunables, name: value})


def _with(case: Case, name: str, **changes: Any) -> Case:
    return replace(case, arrays={**case.arrays, name: replace(case.arrays[name], **changes)})


def _without(mapping: Any, name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}
