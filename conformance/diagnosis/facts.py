"""Facts of a case: what a trigger condition may speak of, beyond the line that the case prints as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Any

import numpy as np

from conformance.adequacy import lift
from conformance.cases.case import Case
from conformance.cases.layouts import broadcast_axis, lay_out
from conformance.cases.scripts import script_counts, script_flags
from conformance.pitfalls.dense import Reference
from conformance.pitfalls.served import SERVED
from conformance.pitfalls.sparse import SPARSE

__all__ = ["VALUES", "Facts", "Flag"]

VALUES = "largest magnitude of a value"

# What an array is when it is laid out so; see `conformance.cases.layouts`.
WORDS = {
    "transposed": "is a view with two axes exchanged, the last one dense",
    "strided": "has gaps between its rows",
    "padded": "has gaps behind its rows and an offset",
    "swapped": "is a view with its last two axes exchanged",
    "expanded": "is expanded with stride 0 along its heads",
    "expanded_batch": "is expanded with stride 0 along the batch",
    "expanded_rows": "is expanded with stride 0 along its rows",
}

# Sizes whose products are offsets into arrays.
OFFSETS = ("sd", "ls", "bh", "gsd", "hls", "hle")

# Kinds of options whose values are whole numbers.
WHOLE = ("count", "size")

# What the axes of a mask or a bias go through.
AXES = {"b": "batches", "h": "heads", "l": "queries", "s": "keys"}


@dataclass(frozen=True)
class Flag:
    """A statement that is true of a case or not.

    Attributes:
        text, contrary: how a sentence says that it is true, or that it is not; no contrary where that would say nothing.
        condition: that it is true, in the language of `oracle.conditions`; "" where that has no words for it.
        of_values: whether it takes the elements of the arrays to tell.
        cost: the lower, the plainer.
    """

    text: str
    contrary: str = ""
    condition: str = ""
    of_values: bool = False
    cost: float = 1.0


class Facts:
    """Facts of one case, each kind found when it is asked for: the elements of arrays take time to make.

    Attributes:
        case: whose facts they are.
        meaning: the conventions that the implementation declares.
    """

    def __init__(self, case: Case, meaning: Mapping[str, str]) -> None:
        self.case, self.meaning = case, meaning

    @cached_property
    def counts(self) -> dict[str, int]:
        """Whole numbers, by the expression that gives them (``h // g``) or in words."""
        return _counts(self.case)

    @cached_property
    def flags(self) -> dict[str, Flag]:
        """Statements about options and layouts that are true, by their text."""
        return {flag.text: flag for flag in (*_options(self.case), *_layouts(self.case))}

    @property
    def flags_of_values(self) -> dict[str, Flag]:
        """Statements about elements that are true, by their text."""
        return self._of_values[0]

    @property
    def magnitudes(self) -> dict[str, float]:
        """Of elements and what they are computed to, in words: ``largest logit``."""
        return self._of_values[1]

    @cached_property
    def _of_values(self) -> tuple[dict[str, Flag], dict[str, float]]:
        case, arguments = self.case, self.case.arguments(self.meaning)
        flags, magnitudes = [*_variety(case, arguments), *_integers(case, arguments)], {}
        method = case.specification
        softmax = {**SPARSE, **SERVED}.get(method.name, Reference if method.name in Reference.methods else None)
        if softmax is not None and case.size:
            with np.errstate(all="ignore"):
                steps = softmax(*lift(case, {**arguments, **self.meaning}))
                magnitudes = _magnitudes(steps)
                flags += _visibility(case, steps.allowed())
        elif method.visible is not None and case.size:
            shape = tuple(case.dims[letter] for letter in "bhls")
            flags += _visibility(case, np.broadcast_to(method.visible(arguments, case.dims), shape))
        if "lses" in arguments:
            flags += _parts(np.isneginf(arguments["lses"]))
            magnitudes = _extremes("logsumexp", arguments["lses"].astype(np.float64))
        finite = {name: float(value) for name, value in magnitudes.items() if np.isfinite(value)}
        return {flag.text: flag for flag in flags}, finite


def _counts(case: Case) -> dict[str, int]:
    method, tunables = case.specification, case.tunables
    dims = {letter: size for letter, size in case.dims.items() if not callable(method.derived.get(letter))}  # else it tells nothing
    counts = {**dims, **tunables}
    if {"h", "g"} <= set(dims):
        counts["h // g"] = dims["h"] // dims["g"]
    counts |= {" * ".join(letters): prod(dims[letter] for letter in letters) for letters in OFFSETS if set(letters) <= set(dims)}
    for length, tile, name in (("s", "block_k", "key"), ("l", "block_q", "query")):
        if tile in tunables and length in dims:
            counts[f"number of {name} tiles"] = -(-dims[length] // tunables[tile])
    counts |= {name: case.options[name] for name, kind in case.specification.options.items() if kind in WHOLE and name in case.options}
    has_window = case.specification.options.get("window") == "window" and case.options.get("window")
    left, right = has_window or (None, None)
    counts |= {f"{side} bound of the window": bound for side, bound in (("left", left), ("right", right)) if bound is not None}
    for name, kind in method.options.items():
        counts |= script_counts(case.options[name], tunables.get("block_size")) if kind == "operations" else {}
    return counts | {f"number of axes of {name}": len(case.axes(name)) for name in ("mask", "bias") if name in case.arrays}


def _options(case: Case) -> Iterator[Flag]:
    method = case.specification
    for name in method.keywords:
        if method.options.get(name) == "operations":
            yield from (Flag(text, contrary, condition) for text, contrary, condition in script_flags(case.options[name]))
        elif name in case.arrays or not any(case.options.get(name) is missing for missing in (None, False)):  # a scale of 0 is given
            condition = name if method.options.get(name) == "flag" else f"{name} is not None"
            yield Flag(f"{name} is given", f"{name} is not given", condition)
    if "scale" in method.options and "d" in case.dims:
        scale = case.options.get("scale", 1 / sqrt(case.dims["d"]))
        if scale == 0:
            yield Flag("scale == 0", condition="scale == 0")
        if scale != 1:
            yield Flag("the scale is not 1", cost=1.2)
    if case.warm:
        yield Flag("another call came before", "no other call came before")


def _layouts(case: Case) -> Iterator[Flag]:
    scattered = False
    for name, recipe in case.arrays.items():
        shape = case.shape(name)
        _, view = lay_out(np.zeros(shape, bool), recipe.layout, broadcast_axis(recipe.layout, shape, case.axes(name)))
        if not view.flags.c_contiguous:
            scattered = True
            yield Flag(f"{name} is not contiguous", f"{name} is contiguous")
            if any(stride == 0 and size > 1 for stride, size in zip(view.strides, view.shape, strict=True)):
                yield Flag(f"{name} is expanded with stride 0")
            else:
                yield Flag(f"{name} is neither contiguous nor expanded", cost=1.1)
            yield Flag(f"{name} {WORDS[recipe.layout]}", cost=1.2)
            if view.shape[-1] > 1 and view.strides[-1] != view.itemsize:
                yield Flag(f"the last axis of {name} is not dense")
        if recipe.garbage:
            yield Flag(f"{name} holds {'NaN' if recipe.garbage == 'nan' else 'huge numbers'} where nothing may read")
    if scattered:
        yield Flag("some array is not contiguous", "every array is contiguous", cost=1.1)


def _variety(case: Case, arguments: Mapping[str, Any]) -> Iterator[Flag]:
    for spec in case.specification.signature.optional:
        if spec.broadcast and spec.name in arguments and arguments[spec.name].size:
            array = arguments[spec.name]
            for index, axis in enumerate(case.axes(spec.name)):
                if (array != np.take(array, [0], axis=index)).any():
                    yield Flag(f"{spec.name} differs between {AXES[axis]}", of_values=True, cost=1.2)


def _integers(case: Case, arguments: Mapping[str, Any]) -> Iterator[Flag]:
    """Statements about integers, by the kind of their domain."""
    for name, domain in case.specification.domains.items():
        kind, *parameters = domain.split()
        if kind in _STATEMENTS and name in arguments:
            sizes = [case.dims[word] for word in parameters if word in case.dims]
            for text, true in _STATEMENTS[kind](arguments[name], sizes):
                if np.any(true):
                    yield Flag(text.format(name=name), of_values=True, cost=1.1)


Statements = Iterator[tuple[str, Any]]


def _of_contexts(contexts: np.ndarray, sizes: list[int]) -> Statements:
    size, some = sizes[0], contexts > 0
    yield "some context is empty", ~some
    yield "some context is a whole number of blocks", some & (contexts % size == 0)
    yield "the last block of some context is partial", contexts % size > 0
    yield "the last position of some context is the first of its block", (contexts % size == 1) & (contexts > 1)
    yield "some context goes beyond its first block", contexts > size
    yield "contexts differ", contexts != contexts[:1]


def _of_tables(table: np.ndarray, sizes: list[int]) -> Statements:
    entries = table[table >= 0]
    yield "some entry of {name} is -1", table < 0
    yield "some block stands in two entries of {name}", len(np.unique(entries)) < len(entries)
    yield "the blocks of some row of {name} do not follow each other", (np.diff(table) != 1) & (table[:, 1:] >= 0)
    yield "block 0 stands in {name}", table == 0


def _of_edges(edges: np.ndarray, sizes: list[int]) -> Statements:
    lengths = np.diff(edges)
    yield "some sequence of {name} is empty", lengths == 0
    yield "the lengths of {name} differ", lengths != lengths[:1]


def _of_slots(slots: np.ndarray, sizes: list[int]) -> Statements:
    yield "some slot is -1", slots < 0
    yield "slots do not follow each other", np.diff(slots) != 1


def _of_positions(positions: np.ndarray, sizes: list[int]) -> Statements:
    yield "some position is not 0", positions > 0
    yield "positions do not count from 0", positions != np.arange(positions.shape[-1])
    yield "positions differ between sequences", positions != positions[:1]
    yield "some position does not follow the one before", np.diff(positions) != 1


_STATEMENTS: dict[str, Callable[[np.ndarray, list[int]], Statements]] = {
    "context": _of_contexts, "block-table": _of_tables, "cumulative": _of_edges, "slots": _of_slots, "position": _of_positions,
}  # fmt: skip


def _visibility(case: Case, allowed: np.ndarray) -> Iterator[Flag]:
    seen = allowed.any(axis=-1)
    if not allowed.all():
        yield Flag("some key is hidden", "no key is hidden", of_values=True)
    if not seen.all():
        yield Flag("some row has no allowed key", "every row has an allowed key", of_values=True)
    if (seen & ~allowed[..., :1].any(axis=-1)).any():
        yield Flag("the first key is hidden in a row that has others", of_values=True, cost=1.2)
    if not allowed[..., :1].all():
        yield Flag("the first key of some row is hidden", of_values=True, cost=1.1)
    tile = case.tunables.get("block_k")
    if tile and (seen & ~allowed[..., :tile].any(axis=-1)).any():
        yield Flag("the first tile is hidden in a row that has other keys", of_values=True, cost=1.2)


def _magnitudes(steps: Reference) -> dict[str, float]:
    logits, allowed = steps.logits().astype(np.float64), steps.allowed()
    scores = np.where(allowed, logits, -np.inf)
    rows = scores.max(axis=-1, initial=-np.inf)
    before = np.maximum.accumulate(scores, axis=-1)[..., :-1]
    rises = np.where(np.isfinite(before), scores[..., 1:] - before, 0.0)
    excess = np.where(allowed | np.isneginf(rows)[..., None], -np.inf, logits - rows[..., None])
    capped = {}
    if steps.softcap is not None:
        capped["largest ratio of a logit to the softcap"] = np.abs(steps.scaled(steps.products())).max(initial=0.0) / steps.softcap
    apart = rows.max(axis=-1, initial=-np.inf) - rows.min(axis=-1, initial=np.inf, where=np.isfinite(rows))
    return {
        **capped,
        VALUES: np.abs(steps.v).max(initial=0.0),
        "largest logit": rows.max(initial=-np.inf),
        "smallest maximum of a row": rows.min(initial=np.inf, where=np.isfinite(rows)),
        "largest magnitude of a logit": np.abs(scores).max(initial=0.0, where=np.isfinite(scores)),
        "largest product of a query and a key": np.abs(steps.products()).max(initial=0.0),
        "largest rise of a row's running maximum": max(rises.max(initial=0.0), 0.0),
        "distance of a hidden logit above the row's maximum": excess.max(initial=-np.inf),
        "distance between the maxima of two rows of a head": apart.max(initial=0.0),
    }


def _parts(empty: np.ndarray) -> Iterator[Flag]:
    if empty.any():
        yield Flag("some part is empty", "no part is empty", of_values=True)
    if empty.all(axis=0).any():
        yield Flag("all parts of some row are empty", "every row has a part that is not empty", of_values=True)
    if empty[:1].any():
        yield Flag("the first part of some row is empty", of_values=True, cost=1.1)
    if empty.size and (empty[0] & ~empty.all(axis=0)).any():
        yield Flag("the first part is empty in a row that has others", of_values=True, cost=1.2)


def _extremes(name: str, values: np.ndarray) -> dict[str, float]:
    finite = values[np.isfinite(values)]
    extremes = {f"largest {name}": finite.max(initial=-np.inf), f"smallest {name}": finite.min(initial=np.inf)}
    return {**extremes, f"largest magnitude of a {name}": np.abs(finite).max(initial=0.0)}
