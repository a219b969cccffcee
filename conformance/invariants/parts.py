"""Invariants of parts: batches, heads and rows do not know of each other, and a part alone gives what it gives in the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from conformance.cases.case import Case
from conformance.cases.shapes import BATCHES, KEY_LENGTHS, KV_HEADS, QUERY_HEADS, QUERY_LENGTHS
from conformance.invariants import DENSE, MERGE, Invariant, Plan, Setting, declare
from conformance.invariants.calls import Call, Part, embedded, part_of, restricted

BOTTOM_RIGHT = "bottom-right"


def _head_letter(case: Case) -> str:
    return KV_HEADS if KV_HEADS in case.dims else QUERY_HEADS


def _letter(case: Case, axis: str) -> str:
    return {"batch": BATCHES, "head": _head_letter(case), "row": QUERY_LENGTHS}[axis]


def _part(call: Call, axis: str, index: np.ndarray, setting: Setting) -> Part:
    return part_of(call.case, _letter(call.case, axis), index, setting.convention("head_map", "grouped"))


def _several(axis: str, case: Case) -> Case:
    """A case with at least two along an axis."""
    letter, dims = _letter(case, axis), dict(case.dims)
    if dims[letter] < 2:
        group = dims[QUERY_HEADS] // dims[KV_HEADS] if letter == KV_HEADS else 1
        dims[letter] = 2
        if letter == KV_HEADS:
            dims[QUERY_HEADS] = 2 * group
    return replace(case, dims=dims)


def _independent(axis: str, poison: bool, call: Call, setting: Setting) -> Plan | None:
    size = call.case.dims[_letter(call.case, axis)]
    if size < 2 or (poison and call.case.dims.get(KEY_LENGTHS) == 0):
        return None  # PyTorch forms the answer without keys as zero times all queries
    # One finds what the others may not change, half of them where what may not spread spreads to.
    kept = np.sort(setting.rng.permutation(size)[: max(1, size // 2) if poison else 1])
    part = _part(call, axis, kept, setting)

    def fill(array: np.ndarray) -> np.ndarray:
        if array.dtype == bool:
            return ~array
        return np.full_like(array, np.nan) if poison else setting.rng.standard_normal(array.shape) * 2

    other = replace(call.elsewhere(part, fill), may_refuse=poison)
    return Plan((other,), lambda answers: restricted(answers[1], call.case, part))


def _rows_alone(call: Call, setting: Setting) -> np.ndarray:
    """Rows that give the same by themselves: any, or those at the end from which causality and window count."""
    size, options = call.case.dims[QUERY_LENGTHS], call.case.options
    count = int(setting.rng.choice([1, int(setting.rng.integers(1, size))]))  # kernels have a path for one query
    if "causal" not in options and "window" not in options:
        return np.sort(setting.rng.permutation(size)[:count])
    last = setting.convention("causal_alignment", BOTTOM_RIGHT) == BOTTOM_RIGHT
    return np.arange(size - count, size) if last else np.arange(count)


def _alone(axis: str, call: Call, setting: Setting) -> Plan | None:
    size = call.case.dims[_letter(call.case, axis)]
    if size < 2:
        return None
    index = _rows_alone(call, setting) if axis == "row" else setting.rng.integers(size, size=1)
    part = _part(call, axis, index, setting)
    return Plan((call.only(part),), lambda answers: embedded(answers[1], call.case, part))


def _prefix(call: Call, setting: Setting) -> Plan | None:
    queries, keys = call.case.dims[QUERY_LENGTHS], call.case.dims[KEY_LENGTHS]
    if not call.case.options.get("causal") or queries < 2:
        return None
    last = setting.convention("causal_alignment", BOTTOM_RIGHT) == BOTTOM_RIGHT
    fewest = max(1, queries - keys + 1) if last else 1  # so that a key is left
    if fewest >= queries or keys == 0:
        return None
    empty = "mask" in call.arrays or "window" in call.case.options or (last and queries > keys)
    if empty and setting.convention("empty_row", "zeros") == "mean":
        return None  # a row without keys is the mean of all values, and the prefix has fewer
    rows = int(setting.rng.integers(fewest, queries))
    kept = {QUERY_LENGTHS: np.arange(rows), KEY_LENGTHS: np.arange(rows + keys - queries if last else min(rows, keys))}
    return Plan((call.only(kept),), lambda answers: embedded(answers[1], call.case, {QUERY_LENGTHS: kept[QUERY_LENGTHS]}))


def _causal(case: Case) -> Case:
    dims = {**case.dims, QUERY_LENGTHS: max(case.dims[QUERY_LENGTHS], 2), KEY_LENGTHS: max(case.dims[KEY_LENGTHS], 2)}
    return replace(case, dims=dims, options={**case.options, "causal": True})


def _relation(
    name: str, statement: str, catches: str, citation: str, plan: Callable[[Call, Setting], Plan | None], axis: str,
    methods: tuple[str, ...] = DENSE + MERGE,
) -> Invariant:  # fmt: skip
    return Invariant(name, statement, catches, citation, methods, plan, partial(_several, axis))


declare(
    _relation(
        "batch-independence", "other sequences of the batch do not change the answer for this one",
        "mask, tile or plan of the first sequence used for all; a maximum over the batch; wrong batch strides",
        "pytorch#139462, vllm#51902", partial(_independent, "batch", False), "batch",
    ),
    _relation(
        "head-independence", "other key/value heads, and the queries that read them, do not change the answer of this one",
        "wrong map from query heads to key/value heads; mask or sink of another head; wrong head strides",
        "onnx PR#7274, rocm-libraries#12227", partial(_independent, "head", False), "head",
    ),
    _relation(
        "row-independence", "other queries do not change the answer for this one",
        "a maximum or a decision to skip that is taken for a whole tile; statistics of another row",
        "flashinfer PR#3838", partial(_independent, "row", False), "row",
    ),
    _relation(
        "batch-poison", "NaN in other sequences of the batch stays there",
        "sums or maxima across the batch; memory of one sequence read for another, at whatever weight",
        "pytorch#101967, vllm#42494", partial(_independent, "batch", True), "batch",
    ),
    _relation(
        "row-poison", "NaN in another query stays in its row",
        "maxima and sums across the rows of a tile; a neighbour's row sum",
        "flashinfer PR#3838", partial(_independent, "row", True), "row",
    ),
    _relation(
        "batch-of-one", "a sequence alone gives what it gives in a batch",
        "state carried from one sequence to the next; another path for a batch of one",
        "vllm#51902", partial(_alone, "batch"), "batch",
    ),
    _relation(
        "head-alone", "a key/value head alone gives what it gives among others",
        "heads that straddle a tile of packed rows; paths chosen by the number of heads",
        "flashinfer PR#1148", partial(_alone, "head"), "head",
    ),
    _relation(
        "rows-alone", "some of the queries alone give what they give among all",
        "offsets of query tiles, rows that are never written, paths for one query, integer offsets that wrap",
        "pytorch#187227, flashinfer#1395", partial(_alone, "row"), "row",
    ),
    Invariant(
        "causal-prefix", "under causality the first queries and their keys alone give what they give in the whole",
        "keys of the future that are read; causality lost in a path; alignment that depends on the lengths",
        "xformers#103, tilde nsa-release#3", DENSE, _prefix, _causal,
    ),
)  # fmt: skip
