"""Invariants that need no second call: the output lies among the values, is one of them, or is their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from conformance.cases.case import ArrayRecipe, Case
from conformance.cases.shapes import KEY_LENGTHS, QUERY_LENGTHS
from conformance.cases.values import SELECTING_GAIN
from conformance.invariants import DENSE, MERGE, Invariant, Plan, Setting, declare
from conformance.invariants.bound import per_query_head
from conformance.invariants.calls import Call, Outputs, without
from oracle.dense import allowed_keys
from oracle.readings import Expected

# The visible values of every row are looked at one by one up to so many; beyond that, the values of all keys.
ONE_BY_ONE = 1 << 20

# Digits of a code: widths that most kernels take, the first that numbers all rows.
CODE_WIDTHS = (16, 24, 32)


def _convexity(call: Call, setting: Setting) -> Plan | None:
    lowest, highest = _hull_of_parts(call) if "lses" in call.arrays else _hull(call, setting)

    def predict(answers: Sequence[Outputs]) -> Outputs:
        out, *statistics = answers[0]
        inside = Expected(np.clip(out.value, lowest, highest), np.zeros(()))
        return inside, *(Expected(one.value, np.full(one.value.shape, np.inf)) for one in statistics)

    return Plan((), predict)


def _hull_of_parts(call: Call) -> tuple[np.ndarray, np.ndarray]:
    outs, present = call.arrays["outs"].astype(np.float64), (call.arrays["lses"] > -np.inf)[..., None]
    nothing = ~present.any(axis=0)
    lowest = np.where(present, outs, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(present, outs, -np.inf).max(axis=0, initial=-np.inf)
    return np.where(nothing, 0.0, lowest), np.where(nothing, 0.0, highest)


def _hull(call: Call, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest visible value of each output element; sinks weigh zeros."""
    case, v = call.case, call.arrays["v"].astype(np.float64)
    heads = per_query_head(v, case.dims["h"], setting.convention("head_map", "grouped"))[:, :, None]  # (B, H, 1, S, Dv)
    visible: np.ndarray | bool = True
    if case.size * case.dims["e"] <= ONE_BY_ONE:
        visible = _visible(call, setting)[..., None]
    zeros = "sinks" in call.arrays
    lowest = np.where(visible, heads, np.inf).min(axis=3, initial=0.0 if zeros else np.inf)
    highest = np.where(visible, heads, -np.inf).max(axis=3, initial=0.0 if zeros else -np.inf)
    empty = lowest > highest
    if visible is True and _hides(case):  # some rows may be empty
        lowest, highest = np.minimum(lowest, 0.0), np.maximum(highest, 0.0)
    filler = setting.convention("empty_row", "zeros")
    if filler == "mean":
        return np.where(empty, heads.min(axis=3, initial=0.0), lowest), np.where(empty, heads.max(axis=3, initial=0.0), highest)
    value = np.nan if filler == "nan" else 0.0
    return np.where(empty, value, lowest), np.where(empty, value, highest)


def _hides(case: Case) -> bool:
    return bool({"mask", "causal", "window"} & {*case.arrays, *case.options})


def _visible(call: Call, setting: Setting) -> np.ndarray:
    options = {name: call.arguments[name] for name in ("mask", "causal", "window") if name in call.arguments}
    conventions: dict[str, Any] = {name: setting.meaning[name] for name in ("causal_alignment", "window_bounds") if name in setting.meaning}
    allowed = allowed_keys(call.case.dims[QUERY_LENGTHS], call.case.dims[KEY_LENGTHS], **options, **conventions)
    return allowed.reshape((1,) * (4 - allowed.ndim) + allowed.shape)


def _start(case: Case, setting: Setting) -> int:
    """How far behind the first key the first query stands."""
    last = setting.convention("causal_alignment", "bottom-right") == "bottom-right"
    return case.dims[KEY_LENGTHS] - case.dims[QUERY_LENGTHS] if last else 0


def _unclaimed(outputs: Outputs) -> Outputs:
    return tuple(Expected(one.value, np.full(one.value.shape, np.inf)) for one in outputs)


def _selection(call: Call, setting: Setting) -> Plan | None:
    case, recipes = call.case, call.case.arrays
    coded = all(recipes[name].recipe == "signs" and recipes[name].layout != "expanded_rows" for name in "qk")
    if not coded or {"bias", "sinks", "mask", "window", "softcap"} & {*recipes, *case.options} or 0 in case.dims.values():
        return None
    queries, keys, width = case.dims[QUERY_LENGTHS], case.dims[KEY_LENGTHS], case.dims["d"]
    scale = case.options.get("scale", 1 / math.sqrt(width))
    if scale <= 0 or max(queries + recipes["q"].seed, keys + recipes["k"].seed) > 2**width:
        return None
    row, head_map = np.arange(queries), setting.convention("head_map", "grouped")
    key = row + recipes["q"].seed - recipes["k"].seed
    known = (key >= 0) & (key < keys)
    if case.options.get("causal"):
        known &= key <= row + _start(case, setting)
    # In exact arithmetic every other key weighs this much at most, next to 1.
    smallest = [np.abs(call.arrays[name].astype(np.float64)).min() for name in "qk"]
    others = math.exp(-2 * scale * math.prod(smallest))
    v = per_query_head(call.arrays["v"].astype(np.float64), case.dims["h"], head_map)
    chosen = v[:, :, np.where(known, key, 0)]
    away = 2 * keys * others * np.abs(v).max()
    budget = np.broadcast_to(np.where(known, away, np.inf)[:, None], chosen.shape)
    return Plan((), lambda answers: (Expected(chosen, budget), *_unclaimed(answers[0][1:])))


def _mean(call: Call, setting: Setting) -> Plan | None:
    case = call.case
    alike = any(not call.arrays[name].any() for name in "qk")
    if not alike or {"bias", "mask"} & set(call.arrays) or "window" in case.options:
        return None
    keys, rows = case.dims[KEY_LENGTHS], np.arange(case.dims[QUERY_LENGTHS])
    counts = np.clip(rows + _start(case, setting) + 1, 0, keys) if case.options.get("causal") else np.full(rows.shape, keys)
    if (counts == 0).any() and setting.convention("empty_row", "zeros") != "zeros":
        return None
    v = call.arrays["v"].astype(np.longdouble)
    sums = np.concatenate([np.zeros((*v.shape[:2], 1, v.shape[3]), v.dtype), np.cumsum(v, axis=2)], axis=2)[:, :, counts]
    sums = per_query_head(sums, case.dims["h"], setting.convention("head_map", "grouped"))
    sink = np.exp(call.arrays["sinks"].astype(np.float64))[:, None] if "sinks" in call.arrays else np.zeros((1, 1))
    total = np.where(counts + sink == 0, 1.0, counts + sink)[..., None]
    # The prefix sums themselves round.
    rounding = keys * float(np.finfo(np.longdouble).eps) * np.abs(v).sum(axis=2, keepdims=True)
    budget = per_query_head(rounding, case.dims["h"], setting.convention("head_map", "grouped")) / total
    value, lse = sums / total, np.where(counts + sink == 0, -np.inf, np.log(total[..., 0]))
    if setting.convention("lse_base", "e") == "2":
        lse = lse / math.log(2)

    def predict(answers: Sequence[Outputs]) -> Outputs:
        statistics = [Expected(np.broadcast_to(lse, one.value.shape), np.zeros(one.value.shape)) for one in answers[0][1:]]
        return Expected(value, np.broadcast_to(budget, value.shape)), *statistics

    return Plan((), predict)


def _selecting(case: Case) -> Case:
    """Query i looks for the key that it stands at, if the last query stands at the last key."""
    case = without(case, "bias", "sinks", "mask", "window", "softcap", "scale")
    dims = {letter: max(size, 1) for letter, size in case.dims.items()}
    rows = max(dims[QUERY_LENGTHS], dims["b"] * dims["g"] * dims[KEY_LENGTHS])
    dims["d"] = dims["e"] = next(width for width in CODE_WIDTHS if rows <= 1 << width)
    ahead = max(dims[KEY_LENGTHS] - dims[QUERY_LENGTHS], 0)
    arrays = {
        "q": ArrayRecipe("signs", ahead, gain=SELECTING_GAIN, layout=_unrepeated(case, "q")),
        "k": ArrayRecipe("signs", layout=_unrepeated(case, "k")),
        "v": ArrayRecipe("bits", layout=_unrepeated(case, "v")),
    }
    return replace(case, dims=dims, arrays={**case.arrays, **arrays})


def _unrepeated(case: Case, name: str) -> str:
    layout = case.arrays[name].layout
    return "contiguous" if layout.startswith("expanded") else layout


def _level(case: Case) -> Case:
    case = without(case, "bias", "mask", "window")
    return replace(case, arrays={**case.arrays, "q": ArrayRecipe("zeros", layout=case.arrays["q"].layout)})


declare(
    Invariant(
        "selection", "where the logits select one key, the output is its value",
        "the wrong key, head or sequence read, which the finding names; positions and offsets that wrap at a large length",
        "pytorch#174861, xformers#719", DENSE, _selection, _selecting,
    ),
    Invariant(
        "mean", "where all logits are equal, the output is the mean of the visible values",
        "padding in the denominator, keys lost or counted twice, a sink that is dropped or counted by every split",
        "flashinfer#3716, rocm-libraries#12227", DENSE, _mean, _level,
    ),
    Invariant(
        "convexity", "the output lies between the smallest and the largest visible value",
        "weights that do not add up to one, hidden values that are read, memory that is never written",
        "flashinfer PR#3838", DENSE + MERGE, _convexity,
    ),
)  # fmt: skip
