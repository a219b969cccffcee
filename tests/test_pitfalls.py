"""The pitfalls: their reference is right, each is wrong somewhere, and no two are the same mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from conformance.pitfalls import Pitfall, Setting, pitfalls_for
from conformance.pitfalls.dense import Reference, Steps
from conformance.pitfalls.merging import Merge
from conformance.pitfalls.tiled import Tiled
from oracle import attention, attention_with_lse, get_method, merge_attention_states
from oracle.conditions import condition_names
from oracle.formats import FORMATS
from oracle.readings import Expected, budget, expected
from oracle.readings.contract import CONTRACTS

METHODS = ("attention", "attention_with_lse", "merge_attention_states")

# Many times what rounding explains; 16 bits leave less room between rounding and a wrong precision.
FAR, FAR_IN_16_BITS = 10.0, 3.0


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments as a kernel of the storage dtype would get them, and how it computes."""

    arguments: Mapping[str, Any]
    dtype: str = "float32"
    tunables: Mapping[str, int] | None = None
    layouts: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        working = np.dtype(np.float64 if self.dtype == "float64" else np.float32)
        return Setting(self.dtype, working, self.tunables or {"block_q": 4, "block_k": 4}, self.layouts)


def call(
    seed: int, *, b: int = 2, h: int = 4, g: int = 2, l: int = 6, s: int = 9, d: int = 4, e: int = 3,  # noqa: E741
    dtype: str = "float32", tunables: Mapping[str, int] | None = None, q_gain: float = 1.0, k_offset: float = 0.0,
    rising: bool = False, mask: str = "", bias: str = "", bias_offset: float = 0.0, sinks: bool = False, hidden_gain: float = 1.0,
    **options: Any,
) -> Call:  # fmt: skip
    """A generated call: axes of mask and bias are given by their letters, other options as they are."""
    rng = np.random.default_rng(seed)
    sizes = {"b": b, "h": h, "l": l, "s": s, "1": 1}
    normal = rng.standard_normal
    arguments = {"q": normal((b, h, l, d)) * q_gain, "k": normal((b, g, s, d)) + k_offset, "v": normal((b, g, s, e)) + 0.5}
    if rising:
        arguments["k"] = np.abs(arguments["k"]) + np.arange(s)[:, None] * 6 / s
        arguments["q"] = np.abs(arguments["q"])
    if mask:
        shape = [sizes[axis] for axis in mask.split(":")[0]]
        arguments["mask"] = rng.random(shape) < 0.6
        if mask.endswith(":late"):
            arguments["mask"] = np.broadcast_to(np.arange(s) >= s - 3, shape).copy()
        if mask.endswith(":rows"):
            arguments["mask"][..., ::2, :] = False
        if mask.endswith(":documents"):
            document = np.arange(s) // 3
            arguments["mask"] = np.broadcast_to(document[:, None] == document, shape).copy()
    if bias:
        arguments["bias"] = normal([sizes[axis] for axis in bias]) + bias_offset
    if sinks:
        arguments["sinks"] = normal(h) + 1
    if hidden_gain != 1:
        arguments["k"] = np.where(arguments["mask"][0, 0, 0][:, None], arguments["k"], arguments["k"] * hidden_gain)
    return stored({**arguments, **options}, dtype, tunables)


def stored(arguments: Mapping[str, Any], dtype: str, tunables: Mapping[str, int] | None = None) -> Call:
    """Round float arrays to the storage dtype and lift them to the working one."""
    working = np.float64 if dtype == "float64" else np.float32
    rounded = {
        name: value.astype(FORMATS[dtype].dtype).astype(working) if isinstance(value, np.ndarray) and value.dtype != bool else value
        for name, value in arguments.items()
    }
    return Call(rounded, dtype, tunables)


def placed(made: Call, **layouts: str) -> Call:
    """A call with some arrays in other layouts."""
    return replace(made, layouts={name: (layout, None) for name, layout in layouts.items()})


def parts(seed: int, *, n: int = 3, gain: float = 1.0, offset: float = 0.0, empty: int = 0) -> Call:
    """Parts to merge; in the first rows, `empty` of them hold no key."""
    rng = np.random.default_rng(seed)
    outs, lses = rng.standard_normal((n, 2, 2, 5, 3)), rng.standard_normal((n, 2, 2, 5)) * gain + offset
    lses[:empty, ..., :2] = -np.inf
    return stored({"outs": outs, "lses": lses}, "float32")


TILES = {"block_q": 16, "block_k": 16}
CALLS = (
    call(0),
    call(1, mask="bhls"),
    call(2, mask="s"),
    call(3, mask="b11s", l=9),
    call(4, bias="bhls"),
    call(5, bias="hls", q_gain=3.0),
    call(6, causal=True),
    call(7, causal=True, l=9, s=6),
    call(8, causal=True, l=9, mask="bhls"),
    call(9, window=(3, 2)),
    call(10, window=(2, None), l=9),
    call(11, window=(None, 1)),
    call(12, causal=True, window=(3, 4), l=9, s=12),
    call(13, causal=True, window=(2, 0), h=2),
    call(14, window=(2, 0), l=12, s=12),
    call(15, softcap=2.0, q_gain=4.0),
    call(16, softcap=2.0, mask="bhls", bias="bhls", q_gain=3.0),
    call(17, softcap=1.5, bias="1hls", scale=2.0),
    call(18, scale=0.7, d=3, e=5),
    call(19, scale=2.0, bias="ls", h=2),
    call(20, sinks=True),
    call(21, sinks=True, mask="bhls:rows", window=(4, None)),
    call(22, d=8, e=8, h=3, g=3),
    call(23, q_gain=200.0),
    call(24, bias="bhls", bias_offset=-200.0),
    call(25, mask="bhls:rows"),
    call(26, mask="bhls:rows", causal=True, l=9),
    call(27, mask="bhls", bias="ls", bias_offset=-3e4),
    call(28, dtype="float64", mask="bhls", bias="ls", bias_offset=-3e9),
    call(29, mask="11ls", hidden_gain=1e4),
    call(30, dtype="float16", mask="bhls:rows", bias="ls", bias_offset=-6e4, q_gain=10.0, k_offset=1000.0, l=12),
    call(31, dtype="float16", q_gain=80.0, k_offset=300.0, d=32),
    call(32, dtype="bfloat16", l=3, s=700, h=2, d=8, tunables=TILES),
    call(33, dtype="float16", l=2, s=4500, h=2, g=1, b=1, d=2, q_gain=0.1, tunables=TILES),
    call(34, l=37, s=53, rising=True, tunables=TILES),
    call(35, l=21, s=60, mask="bhls:late", tunables=TILES),
    call(36, l=20, s=53, causal=True, rising=True, tunables=TILES),
    call(37, l=41, s=49, causal=True, mask="bhls", tunables=TILES),
    call(38, l=19, s=35, softcap=0.5, tunables=TILES),
    call(39, l=17, s=40, sinks=True, rising=True, tunables={**TILES, "num_splits": 3}),
    call(40, l=33, s=70, window=(20, 3), tunables=TILES),
    call(41, l=16, s=37, tunables=TILES),
    call(42, l=5, s=40, bias="ls", bias_offset=-6e4, tunables=TILES),
    call(43, l=5, s=40, b=1, h=1, g=1, q_gain=2.0, tunables={**TILES, "num_splits": 3}),
    call(44, l=1, s=33, tunables=TILES),
    call(45, scale=0.0),
    call(46, window=(0, 2), l=9),
    call(47, b=4, mask="hls"),
    call(48, b=6, mask="ls"),
    call(49, causal=True, h=6, l=9),
    call(50, dtype="bfloat16", q_gain=40.0, d=6),
    call(52, l=9, mask="bhls:documents"),
    call(53, l=21, s=21, mask="ls:documents", tunables=TILES),
    call(54, h=6, g=3, mask="bhls", causal=True, l=9),
    call(55, h=6, g=3, bias="hls"),
    call(56, sinks=True, softcap=0.5),
    placed(call(57), q="transposed", k="transposed"),
    placed(call(58), q="swapped", k="transposed", v="strided"),
    placed(call(59, e=4), q="transposed", v="padded"),
    placed(call(60), k="swapped"),
    placed(call(61, mask="bhls"), v="swapped"),
    placed(call(62, causal=True, l=9), q="padded", k="strided"),
    call(51, d=5),
)
PARTS = (
    parts(0),
    parts(1, n=2, gain=4.0),
    parts(2, empty=1),
    parts(3, empty=3),
    parts(4, offset=200.0),
    parts(5, gain=60.0, offset=-300.0),
    parts(6, n=1),
)


def calls_of(method: str) -> tuple[Call, ...]:
    return PARTS if method == "merge_attention_states" else CALLS


@cache
def wanted(method: str, number: int) -> tuple[Expected, ...]:
    """What the oracle expects of a call, before it is rounded to 16 bits: pitfalls return the working dtype."""
    made = calls_of(method)[number]
    bounds = budget(get_method(method), made.arguments, CONTRACTS[made.dtype])
    return tuple(expected(bound, made.setting.working.name) for bound in bounds)


@cache
def returned(method: str, name: str) -> tuple[tuple[np.ndarray, ...] | None, ...]:
    """What a pitfall returns on every call."""
    pitfall = next(pitfall for pitfall in pitfalls_for(method) if pitfall.name == name)
    return tuple(pitfall.run(made.arguments, made.setting) for made in calls_of(method))


def distance(got: np.ndarray, other: np.ndarray, allowed: np.ndarray) -> float:
    """Largest difference over budget; equal numbers, infinities and NaNs are at no distance."""
    with np.errstate(all="ignore"):
        ratio = np.abs(got.astype(np.float64) - other) / allowed
    ratio = np.where((got == other) | (np.isnan(got) & np.isnan(other)) | (allowed == np.inf), 0.0, ratio)
    return float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0))


def every_pitfall() -> list[Any]:
    return [pytest.param(method, pitfall, id=f"{method}:{pitfall.name}") for method in METHODS for pitfall in pitfalls_for(method)]


def random_call(seed: int) -> tuple[dict[str, Any], dict[str, Any], Setting]:
    """Any options together, in float64; the conventions apart."""
    rng = np.random.default_rng(seed)
    pick = lambda *choices: choices[rng.integers(len(choices))]  # noqa: E731
    b, g, group, l, s, d, e = pick(0, 1, 2), pick(1, 2), pick(1, 3), pick(0, 1, 5, 9), pick(0, 1, 6, 13), pick(1, 4), pick(1, 3)  # noqa: E741
    h = g * group
    arguments = {
        "q": rng.standard_normal((b, h, l, d)) * pick(1.0, 30.0),
        "k": rng.standard_normal((b, g, s, d)), "v": rng.standard_normal((b, g, s, e)),
        "mask": pick(None, rng.random((b, h, l, s)) < 0.5, rng.random(s) < 0.3, rng.random((l, 1)) < 0.5),
        "bias": pick(None, rng.standard_normal((h, l, s)), rng.standard_normal(s)),
        "causal": pick(False, True), "window": pick(None, (2, 1), (None, 0), (3, None)), "softcap": pick(None, 2.0),
        "scale": pick(None, 0.3, -1.0), "sinks": pick(None, rng.standard_normal(h)),
    }  # fmt: skip
    conventions = {name: pick(*values, values[0]) for name, values in get_method("attention_with_lse").conventions.items()}
    if conventions["empty_row"] == "mean" and s == 0:
        conventions["empty_row"] = "zeros"
    tunables = {"block_q": pick(1, 4, 16), "block_k": pick(1, 4, 16), **pick({}, {"num_splits": pick(1, 3, 20)})}
    given = {name: value for name, value in arguments.items() if value is not None}
    return given, conventions, Setting("float64", np.dtype(np.float64), tunables)


@pytest.mark.parametrize("steps", [Reference, Tiled, Merge])
@pytest.mark.parametrize("seed", range(60))
def test_the_steps_are_those_of_the_oracle(steps: type[Steps], seed: int) -> None:
    arguments, conventions, setting = random_call(seed)
    out, lse = attention_with_lse(**arguments, **conventions)
    with np.errstate(all="ignore"):
        got_out, got_lse = steps({**arguments, **conventions}, setting).outputs()
    np.testing.assert_allclose(got_out, out, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got_lse, lse, rtol=1e-9, atol=1e-9)
    del conventions["lse_base"]
    np.testing.assert_allclose(got_out, attention(**arguments, **conventions), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lse_base", ["e", "2"])
@pytest.mark.parametrize("number", range(len(PARTS)))
def test_the_merge_is_that_of_the_oracle(number: int, lse_base: str) -> None:
    arguments = {name: array.astype(np.float64) for name, array in PARTS[number].arguments.items()}
    with np.errstate(all="ignore"):
        got = Merge({**arguments, "lse_base": lse_base}, Setting("float64", np.dtype(np.float64), {})).outputs()
    for one, other in zip(got, merge_attention_states(**arguments, lse_base=lse_base), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [Reference, Tiled, Merge])
def test_the_steps_stay_within_the_budget(steps: type[Steps]) -> None:
    for number, made in enumerate(CALLS):
        with np.errstate(all="ignore"):
            outputs = steps(made.arguments, made.setting).outputs()
        for got, want in zip(outputs, wanted("attention_with_lse", number), strict=True):
            assert got.dtype == made.setting.working
            assert distance(got, want.value, want.budget) <= 1, number


@pytest.mark.parametrize(("method", "pitfall"), every_pitfall())
def test_each_pitfall_is_far_off_somewhere(method: str, pitfall: Pitfall) -> None:
    ratios = {}
    for number, outputs in enumerate(returned(method, pitfall.name)):
        if outputs is not None:
            far = FAR_IN_16_BITS if FORMATS[calls_of(method)[number].dtype].is_half else FAR
            pairs = zip(outputs, wanted(method, number), strict=True)
            ratios[number] = max(distance(got, want.value, want.budget) for got, want in pairs) / far
    assert ratios, "applies to no call"
    assert max(ratios.values()) > 1, ratios


@pytest.mark.parametrize("method", METHODS)
def test_no_two_pitfalls_are_the_same(method: str) -> None:
    names = [pitfall.name for pitfall in pitfalls_for(method)]
    numbers = range(len(calls_of(method)))
    alike = [
        (one, other)
        for one, other in combinations(names, 2)
        if not any(_apart(method, number, returned(method, one)[number], returned(method, other)[number]) for number in numbers)
    ]
    assert alike == []


def _apart(method: str, number: int, one: tuple[np.ndarray, ...] | None, other: tuple[np.ndarray, ...] | None) -> bool:
    """Whether two pitfalls differ by more than rounding; where one does not apply, it means the right thing."""
    if one is None and other is None:
        return False
    for index, want in enumerate(wanted(method, number)):
        first, second = (want.value if outputs is None else outputs[index] for outputs in (one, other))
        largest = np.abs(want.value).max(initial=0.0, where=np.isfinite(want.value))
        if distance(first, second, want.budget + largest / 1000) > FAR_IN_16_BITS:  # what is right may be exact, such as 0
            return True
    return False


@pytest.mark.parametrize(("method", "pitfall"), every_pitfall())
def test_each_pitfall_says_what_it_is(method: str, pitfall: Pitfall) -> None:
    assert pitfall.name == pitfall.name.lower()
    assert " " not in pitfall.name
    assert pitfall.explanation.endswith(".")
    assert pitfall.citation
    assert pitfall.methods == (method,)


def test_there_are_enough() -> None:
    assert len(pitfalls_for("attention")) >= 34
    assert len(pitfalls_for("attention_with_lse")) >= 34
    assert len(pitfalls_for("merge_attention_states")) >= 6


def test_conditions_name_facts_only() -> None:
    for mistake in {own for (method, _), own in Steps.declared.items() if method in METHODS}:
        known: set[str] = set()
        for made in (CALLS[0], PARTS[0]) if issubclass(mistake, Merge) else (CALLS[0],):
            steps = mistake(made.arguments, made.setting)
            known |= set(steps.facts())
        assert condition_names(mistake.needs) <= known, mistake


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("empty", ["b", "l", "s"])
def test_empty_calls_raise_nothing(empty: str, dtype: str) -> None:
    plain = {"b": 2, "l": 3, "s": 4, empty: 0}
    for options in ({}, {"mask": "bhls", "causal": True, "sinks": True}, {"bias": "hls", "window": (1, 1), "softcap": 2.0}):
        made = call(0, **plain, **options, dtype=dtype)
        for method in ("attention", "attention_with_lse"):
            for pitfall in pitfalls_for(method):
                for tunables in ({}, {"block_k": 3, "block_q": 2}, {"block_k": 3, "num_splits": 7}):
                    outputs = pitfall.run(made.arguments, Setting(dtype, made.setting.working, tunables))
                    if outputs is not None:
                        assert outputs[0].shape == (plain["b"], 4, plain["l"], 3), pitfall.name


@pytest.mark.parametrize("method", ["attention", "attention_with_lse"])
def test_what_no_option_brings_out_does_not_apply(method: str) -> None:
    plain = call(0, l=9, h=2, g=2, d=3, e=3)
    of_options = ("mask", "causal", "window", "softcap", "bias", "sink", "empty", "heads-i", "scale-option", "scale-by-v", "lse-of-empty")
    for pitfall in pitfalls_for(method):
        if pitfall.name.startswith(of_options):
            assert pitfall.run(plain.arguments, plain.setting) is None, pitfall.name


@pytest.mark.parametrize("method", METHODS)
def test_arguments_stay_as_they_are(method: str) -> None:
    for made in (calls_of(method)[0], calls_of(method)[-1]):
        before = {name: np.copy(value) for name, value in made.arguments.items()}
        for value in made.arguments.values():
            value.setflags(write=False)
        for pitfall in pitfalls_for(method):
            pitfall.run(made.arguments, made.setting)
        for name, value in made.arguments.items():
            np.testing.assert_array_equal(value, before[name])
