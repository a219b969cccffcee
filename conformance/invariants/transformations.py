"""Invariants of transformed arguments: keys in another order or twice, logits shifted, values scaled, keys in two parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from conformance.cases.case import Case
from conformance.cases.shapes import KEY_LENGTHS, QUERY_HEADS, QUERY_LENGTHS
from conformance.invariants import DENSE, MERGE, Invariant, Plan, Setting, declare
from conformance.invariants.calls import PARTS, Call, Outputs, without
from oracle import METHODS
from oracle.formats import FORMATS
from oracle.readings import Expected
from oracle.readings.bounded import Bounded, split
from oracle.readings.contract import CONTRACTS

# Values are scaled by 2 to this power: far, but not so far that a product with a weight leaves the range.
POWERS = {"float16": (6,)}
FAR = (-40, 40)

# Steps of a shift: few bits, so that a bias plus a shift stays exact in every format.
SHIFT_STEP = 4.0


def _terms(case: Case) -> str:
    """The letter of what is weighed: keys, or parts to merge."""
    return PARTS if PARTS in case.dims else KEY_LENGTHS


def _values(case: Case) -> str:
    return "outs" if PARTS in case.dims else "v"


def _ordered(case: Case) -> bool:
    """Whether the order of the keys matters."""
    return bool(case.options.get("causal")) or "window" in case.options


def _orderless(case: Case) -> Case:
    return without(case, "causal", "window")


def _shifted(outputs: Outputs, shift: np.ndarray | float) -> Outputs:
    """Outputs whose logsumexp, if there is one, is moved."""
    out, *statistics = outputs
    return out, *(Expected(lse.value + shift, lse.budget) for lse in statistics)


def _in_base(shift: np.ndarray | float, setting: Setting) -> np.ndarray | float:
    return shift / math.log(2) if setting.convention("lse_base", "e") == "2" else shift


def _permutation(call: Call, setting: Setting) -> Plan | None:
    letter = _terms(call.case)
    size = call.case.dims[letter]
    if _ordered(call.case) or size < 2:
        return None
    return Plan((call.only({letter: setting.rng.permutation(size)}),), lambda answers: answers[1])


def _duplication(call: Call, setting: Setting) -> Plan | None:
    letter = _terms(call.case)
    size = call.case.dims[letter]
    if _ordered(call.case) or size == 0 or "sinks" in call.arrays:
        return None
    twice = call.only({letter: np.tile(np.arange(size), 2)})
    return Plan((twice,), lambda answers: _shifted(answers[1], -_in_base(math.log(2), setting)))


def _split(call: Call, setting: Setting) -> Plan | None:
    letter = _terms(call.case)
    size, options = call.case.dims[letter], call.case.options
    if size < 2 or "window" in options:
        return None
    first = int(setting.rng.integers(1, size))
    if options.get("causal"):
        # All queries see the keys before the first query; the others are aligned with the queries as the whole is.
        first = size - call.case.dims[QUERY_LENGTHS]
        if first <= 0 or setting.convention("causal_alignment", "bottom-right") != "bottom-right":
            return None
    parts = (
        call.only({letter: np.arange(first)}).without("causal"),
        call.only({letter: np.arange(first, size)}).without("sinks"),  # the sink is in the first part
    )
    return Plan(parts, lambda answers: _merged(answers[1:], setting))


def _merged(parts: Sequence[Outputs], setting: Setting) -> Outputs:
    """The parts joined by the oracle, which carries their errors along; it adds hardly any of its own."""
    exact = CONTRACTS["float64"]
    columns = []
    for column in zip(*parts, strict=True):
        value = np.stack([np.asarray(one.value, dtype=np.float64) for one in column])
        columns.append((value, np.stack([np.broadcast_to(one.budget, one.value.shape) for one in column])))
    (outs, out_errors), (lses, lse_errors) = columns
    empty = lses == -np.inf  # weighs nothing, whatever is declared to stand there
    outs = np.where(empty[..., None], 0.0, outs)
    with np.errstate(over="ignore"):
        merged = METHODS["merge_attention_states"].spec(
            Bounded(outs, np.where(empty[..., None], 0.0, out_errors), exact),
            Bounded(lses, np.where(empty, 0.0, lse_errors), exact),
            lse_base=setting.convention("lse_base", "e"),
        )
    return tuple(Expected(value, np.broadcast_to(error, value.shape)) for value, error in map(split, merged))


def _shift(call: Call, setting: Setting) -> Plan | None:
    case = call.case
    rows = (*(case.dims[letter] for letter in (QUERY_HEADS, QUERY_LENGTHS)), 1)
    if PARTS in case.dims:
        shift = setting.rng.integers(1, 4, rows[:2]) * SHIFT_STEP
        moved = _exactly(call.arrays["lses"] + shift, call.arrays["lses"])
        if moved is None:
            return None
        return Plan((call.put(lses=moved),), lambda answers: _shifted(answers[1], -shift))
    after = setting.convention("softcap_order", "before-bias") == "after-bias" and "softcap" in case.options
    if after or "bias" not in setting.implementation.options:
        return None
    if "sinks" in call.arrays:  # a sink belongs to a head
        rows = (rows[0], 1, 1)
    shift = setting.rng.integers(-3, 4, rows) * SHIFT_STEP
    q = call.arrays["q"]
    if "bias" in call.arrays:
        bias = call.arrays["bias"]
        whole = tuple(case.dims[letter] for letter in "bhls")
        moved = _exactly(np.broadcast_to(bias, whole).astype(np.float64) + shift, bias)
        related = None if moved is None else call.without("bias").add("bias", moved, tuple("bhls"))
    else:
        axes = (QUERY_HEADS, QUERY_LENGTHS if rows[1] > 1 or case.dims[QUERY_LENGTHS] == 1 else "1", "1")
        related = call.add("bias", shift.astype(q.dtype), axes)
    if related is not None and "sinks" in call.arrays:
        sinks = _exactly(call.arrays["sinks"] + shift[:, 0, 0], call.arrays["sinks"])
        related = None if sinks is None else related.put(sinks=sinks)
    if related is None:
        return None
    return Plan((related,), lambda answers: _shifted(answers[1], -_in_base(shift[..., 0], setting)))


def _exactly(moved: np.ndarray, original: np.ndarray) -> np.ndarray | None:
    """The array in the dtype of the original; None if that rounds it."""
    stored = moved.astype(original.dtype)
    return stored if np.array_equal(stored.astype(np.float64), moved.astype(np.float64)) else None


def _scaling(call: Call, setting: Setting) -> Plan | None:
    name, form = _values(call.case), FORMATS[call.case.dtype]
    factor = 2.0 ** setting.rng.choice(POWERS.get(form.name, FAR))
    values = call.arrays[name]
    scaled = (values.astype(np.float64) * factor).astype(values.dtype)
    back = scaled.astype(np.float64) / factor
    if not np.array_equal(back, values.astype(np.float64)):
        return None

    def predict(answers: Sequence[Outputs]) -> Outputs:
        out, *statistics = answers[1]
        return Expected(out.value / factor, out.budget / factor), *statistics

    return Plan((call.put(**{name: scaled}),), predict)


def _tunables(call: Call, setting: Setting) -> Plan | None:
    """Against tiles of one element, whose edges cannot be wrong, and a single split; against larger ones if it has those."""
    tunables, own = setting.implementation.tunables, call.case.tunables
    plainest = {name: tunable.choices[0] if tunable.choices else 1 for name, tunable in tunables.items()}
    if plainest == own:
        length = max(call.case.dims.get(KEY_LENGTHS, 1), 1)
        plainest = {name: int(setting.rng.choice(tunable.choices or (2, 7, length + 1))) for name, tunable in tunables.items()}
    if plainest == own:
        return None
    return Plan((replace(call, case=replace(call.case, tunables=plainest)),), lambda answers: answers[1])


def _layout(call: Call, setting: Setting) -> Plan | None:
    recipes = call.case.arrays
    if all(recipe.layout == "contiguous" for recipe in recipes.values()):
        return None
    plain = {name: replace(recipe, layout="contiguous") for name, recipe in recipes.items()}
    return Plan((replace(call, case=replace(call.case, arrays=plain)),), lambda answers: answers[1])


declare(
    Invariant(
        "key-permutation", "the order of the keys, with their values, mask and bias, does not matter",
        "keys lost, counted twice or weighed wrongly at a tile's edge or by position; reading order taken from storage",
        "pytorch#141126", DENSE + MERGE, _permutation, _orderless,
    ),
    Invariant(
        "key-duplication", "every key twice leaves the output as it is and adds log 2 to the logsumexp",
        "padding in the denominator, keys lost at the end: what a wrong count of keys does changes with their number",
        "flashinfer#3716", DENSE + MERGE, _duplication, lambda case: without(_orderless(case), "sinks"),
    ),
    Invariant(
        "key-split", "two parts of the keys, merged by their logsumexp, give the whole",
        "a logsumexp that is wrong, in another base, or not moved by the maximum; sinks or masks that depend on the part",
        "sglang#40903, flashinfer PR#440", ("attention_with_lse", "merge_attention_states"), _split,
        lambda case: without(case, "window", "causal"),
    ),
    Invariant(
        "logit-shift", "a constant added to the logits of a row changes nothing but its logsumexp",
        "a maximum that starts at 0 or at a sentinel, no maximum at all, a bias that is scaled or capped",
        "flashinfer PR#4401, tt-metal#55333", DENSE + MERGE, _shift, lambda case: without(case, "bias"),
    ),
    Invariant(
        "value-scaling", "values scaled by a power of two give outputs scaled by it",
        "constants added to numerator or denominator, clipping, overflow of an accumulator, values stored in a narrower format",
        "flashinfer#1023", DENSE + MERGE, _scaling,
    ),
    Invariant(
        "tunables", "tile sizes and numbers of splits do not change the answer",
        "partial tiles, empty splits, a merge of splits, a path for one tile size",
        "mamba PR#537, flashinfer#4347", DENSE + MERGE, _tunables,
    ),
    Invariant(
        "layout", "where the elements of an argument lie in memory does not change the answer",
        "strides that are assumed or taken from another argument, a copy made only for some shapes",
        "pytorch#181133, flashinfer PR#1865", DENSE + MERGE, _layout,
    ),
)  # fmt: skip
