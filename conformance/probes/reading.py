"""What the wrong output of a probe says about what was read: its values are codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from conformance.cases.case import Case
from conformance.invariants import MERGE
from conformance.judge import Judgement, compare
from oracle.readings import EXACT_KINDS, Expected

__all__ = ["read", "reading"]


def read(judgement: Judgement) -> Judgement:
    """The judgement with what its outputs say, if it is a finding on a case with coded values."""
    if judgement.finding is None or not judgement.outputs or not judgement.wanted:
        return judgement
    said = reading(judgement.case, judgement.outputs[0], judgement.wanted[0])
    if not said:
        return judgement
    return replace(judgement, finding=replace(judgement.finding, reads=said))


def reading(case: Case, got: np.ndarray, wanted: Expected) -> str:
    """What wrong elements of the first output say about what was read; "" where nothing can be said.

    Args:
        case: the call.
        got: (B, H, L, Dv).
        wanted: the right answer, of that shape.
    """
    wrong = ~compare(got, wanted)[1]
    values = case.arrays.get(_values(case))
    if got.dtype.kind in EXACT_KINDS:
        return ""
    readers: dict[str, Callable[..., str]] = {"bits": _key, "one_hot": _weights, "ones": _sum}
    said = _gaps(case, got, wanted) or _leaked(case, got, wanted) or _hidden(case, got, wrong)
    reads_some = case.specification.visible or case.specification.foreign or case.specification.subject == "cache"
    chooses = ("q" in case.arrays and reads_some) or case.method in MERGE
    if not said and chooses and values is not None and wrong.any() and values.recipe in readers and values.gain == 1:
        said = readers[values.recipe](case, got.astype(np.float64), wanted, wrong.any(axis=-1))
    return said


def _values(case: Case) -> str:
    """Name of the array that the output is a combination of; "" where it is none by itself."""
    return next((name for name in ("outs", "v", "v_pages") if name in case.arrays), "")


# What the axes of an output and of values go through.
ROWS = {"b": "batch", "h": "head", "l": "query"}
VALUES = {
    "n": "part", "b": "batch", "g": "key/value head", "s": "key", "h": "head", "l": "row", "num_blocks": "block", "block_size": "offset",
}  # fmt: skip


def _query(case: Case, index: tuple[int, ...]) -> str:
    if case.specification.in_words is not None:
        return case.specification.in_words(case.options, index)
    letters = case.specification.signature.outputs[0].dims[:-1]
    places = [(ROWS[letter], place, case.dims[letter]) for letter, place in zip(letters, index, strict=True)]
    return ", ".join(f"{name} {place}" for name, place, size in places if size > 1 or name == "query") or "query 0"


def _first(chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(chosen)), chosen.shape))


def _decoded(rows: np.ndarray, count: int) -> np.ndarray:
    """The numbers that rows of binary digits stand for; -1 for a row that is no number of ``count``."""
    with np.errstate(invalid="ignore"):
        digits = np.where(np.abs(rows) < 0.25, 0, np.where(np.abs(rows - 1) < 0.25, 1, -1))
        number = (np.maximum(digits, 0).astype(np.int64) << np.minimum(np.arange(rows.shape[-1]), 62)).sum(axis=-1)
    return np.where((digits >= 0).all(axis=-1) & (number < count), number, -1)


def _key(case: Case, got: np.ndarray, wanted: Expected, wrong: np.ndarray) -> str:
    name = _values(case)
    letters, sizes = case.axes(name)[:-1], case.shape(name)[:-1]
    count, recipe = int(np.prod(sizes)), case.arrays[name]
    if recipe.seed or recipe.layout.startswith("expanded") or count > 1 << got.shape[-1]:
        return ""
    row_axis = next(letter for letter in ("s", "l", "block_size", "n") if letter in letters)
    meant, was = _decoded(wanted.value.astype(np.float64), count), _decoded(got, count)

    def row(number: int, other: int) -> str:
        here, there = (np.unravel_index(max(one, 0), sizes) for one in (number, other))
        where = list(zip(letters, here, there, strict=True))
        names = {**VALUES, "n": "token"} if case.specification.subject == "cache" else VALUES
        told = [f"{names[letter]} {a}" for letter, a, b in where if a != b or letter in (row_axis, "num_blocks")]
        return ", ".join(told)

    if (other := wrong & (was >= 0) & (meant >= 0) & (was != meant)).any():
        at = _first(other)
        return f"{_query(case, at)} read {row(was[at], meant[at])} where {row(meant[at], was[at])} was meant"
    if (alone := wrong & (was >= 0) & (meant < 0)).any():
        at = _first(alone)
        return f"{_query(case, at)} read {row(was[at], was[at])} alone where others were meant"
    if (mixed := wrong & (was < 0) & (meant >= 0)).any():
        at = _first(mixed)
        return f"{_query(case, at)} did not read {row(meant[at], meant[at])} alone, which was meant"
    return ""


def _weights(case: Case, got: np.ndarray, wanted: Expected, wrong: np.ndarray) -> str:
    if case.axes(_values(case)) not in (("b", "g", "s", "e"), ("b", "h", "l", "e")):
        return ""
    recipe, keys = case.arrays["v"], case.dims.get("s", case.dims["l"])
    if keys > got.shape[-1]:
        return ""
    at = _first(wrong)
    columns = (np.arange(keys) + recipe.seed) % got.shape[-1]
    weights, right, allowed = (np.broadcast_to(x, got.shape)[at][columns] for x in (got, wanted.value, wanted.budget))
    if not np.isfinite(weights).all():
        return ""
    told = []
    for word, chosen in (
        ("did not read", (np.abs(right) > allowed) & (np.abs(weights) <= allowed)),
        ("read, though hidden,", (right == 0) & (np.abs(weights) > allowed)),
    ):
        if chosen.any():
            listed = [str(key) for key in np.flatnonzero(chosen)[:4]]
            told.append(f"{word} key {', '.join(listed)}{', ...' if chosen.sum() > 4 else ''}")
    total, meant = f"{weights.sum():.6g}", f"{float(right.sum()):.6g}"
    if total != meant:
        told.append(f"its weights add up to {total} instead of {meant}")
    return f"{_query(case, at)}: {'; '.join(told)}" if told else ""


def _sum(case: Case, got: np.ndarray, wanted: Expected, wrong: np.ndarray) -> str:
    at = _first(wrong)
    total, right = float(got[at][0]), float(np.broadcast_to(wanted.value, got.shape)[at][0])
    return f"{_query(case, at)}: its weights add up to {total:.6g} instead of {right:.6g}" if np.isfinite(total) else ""


def _gaps(case: Case, got: np.ndarray, wanted: Expected) -> str:
    """NaN that can only come from the memory between the rows of an argument."""
    gapped = [name for name, recipe in case.arrays.items() if recipe.layout in ("strided", "padded")]
    # The harness fills the free pages of a cache with NaN.
    poisoned = case.specification.subject == "cache" or any(recipe.garbage == "nan" for recipe in case.arrays.values())
    if not gapped or poisoned or not (np.isnan(got) & np.isfinite(wanted.value)).any():
        return ""
    return f"the only NaN among the arguments lies between the rows of {', '.join(gapped)}"


def _leaked(case: Case, got: np.ndarray, wanted: Expected) -> str:
    """NaN that can only come from what belongs to others."""
    filled = [name for name, recipe in case.arrays.items() if recipe.garbage == "nan"]
    if not filled or not (np.isnan(got) & np.isfinite(wanted.value)).any():
        return ""
    if not all(np.isfinite(array).all() for array in case.without_garbage().arguments().values() if isinstance(array, np.ndarray)):
        return ""
    return f"the only NaN among the arguments lies in {', '.join(filled)}, where nothing may read"


def _hidden(case: Case, got: np.ndarray, wrong: np.ndarray) -> str:
    """Numbers larger than any value that may be read."""
    filled = [name for name, recipe in case.arrays.items() if recipe.garbage == "garbage"]
    if not filled or not wrong.any():
        return ""
    values = case.without_garbage().arguments()[_values(case)].astype(np.float64)
    with np.errstate(invalid="ignore"):
        beyond = np.abs(got.astype(np.float64)) > 2 * np.abs(values).max(initial=0.0)
    return f"only in {', '.join(filled)}, where nothing may read, are numbers that large" if (beyond & wrong).any() else ""
