"""The pitfalls of linear, random-feature, low-rank and polynomial attention: their steps are right, and each mistake is one of its own."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from conformance.adequacy import lift, run_suspect, suspects
from conformance.cases.lines import parse_case
from conformance.pitfalls import Pitfall, pitfalls_for
from conformance.pitfalls.chunked import InChunks
from conformance.pitfalls.dense import Steps
from conformance.pitfalls.linear import Gated, Linear
from conformance.pitfalls.low_rank import Linformer
from conformance.pitfalls.polynomial import Chebyshev
from conformance.pitfalls.random_features import Performer, Stabilised
from oracle import get_method
from oracle.conditions import condition_names
from oracle.formats import FORMATS
from oracle.readings import budget, expected, value
from oracle.readings.contract import CONTRACTS

PLAIN = "b=2 h=2 l=7 d=4 e=3 q=normal(0) k=normal(1) v=normal(2)"
LONG = "b=1 h=2 l=37 d=4 e=3 q=normal(3) k=normal(4) v=normal(5) chunk_size=16"
LINES = {
    Linear: (
        *(f"float32 {PLAIN} feature_map={name}" for name in ("elu+1", "relu+1", "relu", "exp")),
        f"float32 {PLAIN} causal=True", f"float32 {PLAIN} eps=1.0", f"float32 {PLAIN} eps=0.01 causal=True feature_map=relu",
        f"float32 {LONG}", f"float32 {LONG} causal=True", f"float64 {PLAIN}",
        "float32 b=1 h=1 l=5 d=4 e=3 q=negative(0) k=negative(1)*3 v=normal(2)",
        "bfloat16 b=1 h=1 l=90 d=8 e=3 q=normal(0) k=normal(1) v=normal(2)",
        "bfloat16 b=1 h=1 l=700 d=1 e=3 q=normal(0) k=normal(1) v=index(2)",
    ),
    Gated: (
        *(f"float32 {PLAIN} feature_map={name}" for name in ("elu+1", "relu+1", "relu", "exp")),
        f"float32 {PLAIN} eps=1.0", f"float32 {PLAIN} eps=0.01 feature_map=relu", f"float32 {LONG}", f"float64 {PLAIN}",
        "float32 b=1 h=1 l=5 d=4 e=3 feature_map=elu+1 q=negative(0) k=negative(1)*3 v=normal(2)",
        "float32 b=1 h=1 l=5 d=8 e=3 q=normal(0) k=negative(1) v=normal(2)",
        "float32 b=1 h=1 l=5 d=8 e=3 q=normal(0) k=last(1)*10 v=normal(2)",
        "float32 b=1 h=1 l=5 d=4 e=3 feature_map=elu+1 q=negative(0)*3 k=normal(1) v=normal(2)",
    ),
    Performer: (
        *(f"float32 {PLAIN} m={count} projection=normal(7) eps={eps}" for count in (1, 4, 16) for eps in (1e-6, 0.0)),
        f"float32 {PLAIN} m=5 projection=normal(7) causal=True", f"float32 {LONG} m=5 projection=normal(7) causal=True",
        f"float32 {LONG} m=5 projection=normal(7)", f"float64 {PLAIN} m=5 eps=0.0 projection=normal(7)",
        "float32 b=1 h=1 l=5 d=9 e=3 m=8 q=normal(0) k=normal(1) v=normal(2) projection=normal(7)",
        "float32 b=1 h=1 l=3 d=4 e=3 m=8 eps=1.0 q=zeros(0) k=zeros(1) v=normal(2) projection=normal(7)",
        "float32 b=1 h=1 l=5 d=4 e=3 m=8 eps=0.0 q=normal(0)*10 k=normal(1)*3 v=normal(2) projection=normal(7)*10",
    ),
    Linformer: (
        *(
            f"float32 b=2 h=2 l=3 s=9 d=4 w=3 p={count} q=normal(0) k=normal(1) v=normal(2) e=normal(3) f=normal(4)"
            for count in (1, 2, 5, 9)
        ),
        "float32 b=1 h=1 l=3 s=37 d=4 w=3 p=2 scale=0.3 q=normal(0) k=normal(1) v=normal(2) e=normal(3) f=normal(4)",
        "float32 b=1 h=1 l=3 s=9 d=4 w=3 p=3 q=normal(0)*60 k=normal(1) v=normal(2) e=normal(3) f=normal(4)",
        "float32 b=1 h=1 l=3 s=37 d=4 w=3 p=2 q=normal(0) k=normal(1) v=normal(2) e=normal(3) f=normal(4) block_k=16",
        "float64 b=1 h=1 l=3 s=9 d=4 w=3 p=3 q=normal(0) k=normal(1) v=normal(2) e=normal(3) f=normal(4)",
    ),
    Chebyshev: (
        *(
            f"float32 b=2 h=2 l=3 s=9 d=4 e=3 degree={degree} domain={domain} q=normal(0) k=normal(1) v=normal(2)"
            for degree in (0, 1, 2, 3, 6) for domain in ("(-1.0,1.0)", "(-4.0,4.0)", "(-3.0,1.0)")
        ),
        "float32 b=1 h=1 l=3 s=9 d=4 e=3 degree=3 domain=(-2.0,2.0) scale=0.3 q=normal(0)*3 k=normal(1) v=normal(2)",
        "float32 b=1 h=1 l=3 s=37 d=4 e=3 degree=3 domain=(-2.0,2.0) q=normal(0) k=normal(1) v=normal(2) block_k=16",
        "float64 b=1 h=1 l=3 s=9 d=4 e=3 degree=3 domain=(-2.0,2.0) q=normal(0) k=normal(1) v=normal(2)",
        "bfloat16 b=1 h=1 l=30 s=9 d=4 e=3 degree=16 domain=(-4.0,4.0) q=normal(0)*2 k=normal(1) v=normal(2)",
    ),
}  # fmt: skip
METHODS = {name: steps for steps in LINES for name in steps.methods}

# Many times what rounding explains; 16 bits leave less room between rounding and a wrong precision.
FAR, FAR_IN_16_BITS = 10.0, 1.5


@cache
def calls(method: str) -> tuple[Any, ...]:
    """Arguments, setting, and what is expected in the working dtype, of every case."""
    made = []
    for line in LINES[METHODS[method]]:
        case = parse_case(f"{method} {line}")
        lifted, setting = lift(case, case.arguments())
        with np.errstate(all="ignore"):
            wanted = expected(budget(get_method(method), lifted, CONTRACTS[case.dtype])[0], setting.working.name)
        made.append((lifted, setting, wanted))
    return tuple(made)


@cache
def returned(method: str, name: str) -> tuple[np.ndarray | None, ...]:
    """What a pitfall returns on every call, at the case's own chunk size."""
    suspect = next(one for one in suspects(method, ("chunk_size", "block_k")) if one.pitfall.name == name)
    outputs = []
    for lifted, setting, _ in calls(method):
        with np.errstate(all="ignore"):
            got = suspect.pitfall.run(lifted, setting)
        outputs.append(None if got is None else got[0])
    return tuple(outputs)


def distance(got: np.ndarray, other: np.ndarray, allowed: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        ratio = np.abs(got.astype(np.float64) - other) / allowed
    ratio = np.where((got == other) | (np.isnan(got) & np.isnan(other)) | (allowed == np.inf), 0.0, ratio)
    return float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0))


def every_pitfall() -> list[Any]:
    return [pytest.param(method, pitfall, id=f"{method}:{pitfall.name}") for method in METHODS for pitfall in pitfalls_for(method)]


@pytest.mark.parametrize("method", METHODS)
def test_the_steps_are_those_of_the_oracle(method: str) -> None:
    for lifted, setting, _ in calls(method):
        wide = {name: x.astype(np.float64) if isinstance(x, np.ndarray) else x for name, x in lifted.items()}
        with np.errstate(all="ignore"):
            (got,) = METHODS[method](wide, type(setting)("float64", np.dtype(np.float64), setting.tunables)).outputs()
            (want,) = value(get_method(method), wide)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_steps_stay_within_the_budget(method: str) -> None:
    for lifted, setting, wanted in calls(method):
        for steps in (METHODS[method], Stabilised) if METHODS[method] is Performer else (METHODS[method],):
            with np.errstate(all="ignore"):
                (got,) = steps(lifted, setting).outputs()
            assert got.dtype == setting.working
            assert distance(got, wanted.value, wanted.budget) <= 1, lifted


@pytest.mark.parametrize(("method", "pitfall"), every_pitfall())
def test_each_pitfall_is_far_off_somewhere(method: str, pitfall: Pitfall) -> None:
    ratios = {}
    for number, output in enumerate(returned(method, pitfall.name)):
        if output is not None:
            _, setting, wanted = calls(method)[number]
            far = FAR_IN_16_BITS if FORMATS[setting.dtype].is_half else FAR
            ratios[number] = distance(output, wanted.value, wanted.budget) / far
    assert ratios, "applies to no call"
    assert max(ratios.values()) > 1, ratios


@pytest.mark.parametrize("method", METHODS)
def test_no_two_pitfalls_are_the_same(method: str) -> None:
    names = [pitfall.name for pitfall in pitfalls_for(method)]
    assert [pair for pair in combinations(names, 2) if not _apart(method, *pair)] == []


def _apart(method: str, one: str, other: str) -> bool:
    """Whether two pitfalls differ by more than rounding; where one does not apply, it means the right thing."""
    for (_, _, wanted), first, second in zip(calls(method), returned(method, one), returned(method, other), strict=True):
        if first is None and second is None:
            continue
        here, there = (wanted.value if output is None else output for output in (first, second))
        largest = np.abs(wanted.value).max(initial=0.0, where=np.isfinite(wanted.value))
        if distance(here, there, wanted.budget + largest / 1e5) > 1:
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
    for method, least in zip(METHODS, (36, 45, 35, 22, 30), strict=True):
        assert len(pitfalls_for(method)) >= least, method


def test_conditions_name_facts_only() -> None:
    for method, steps in METHODS.items():
        lifted, setting, _ = calls(method)[0]
        for mistake in _below(steps):
            if method in mistake.methods and hasattr(mistake, "name"):
                assert condition_names(mistake.needs) <= set(mistake(lifted, setting).facts()), mistake


def _below(steps: type[Steps]) -> set[type[Steps]]:
    return {steps}.union(*(_below(below) for below in steps.__subclasses__()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("empty", ["b", "l", "s"])
def test_empty_calls_raise_nothing(empty: str, method: str) -> None:
    for line in LINES[METHODS[method]]:
        words = [f"{empty}=0" if word.startswith(f"{empty}=") else word for word in line.split()]
        case = parse_case(" ".join([method, *words]))
        lifted, setting = lift(case, case.arguments())
        for suspect in suspects(method, case.tunables):
            outputs = run_suspect(suspect, lifted, setting)
            if outputs is not None:
                assert outputs[0].shape == case.output_shape(case.specification.signature.outputs[0]), suspect.name


@pytest.mark.parametrize("method", METHODS)
def test_arguments_stay_as_they_are(method: str) -> None:
    for lifted, setting, _ in calls(method)[::4]:
        arrays = {name: x for name, x in lifted.items() if isinstance(x, np.ndarray)}
        before = {name: np.copy(x) for name, x in arrays.items()}
        for x in arrays.values():
            x.setflags(write=False)
        for pitfall in pitfalls_for(method):
            with np.errstate(all="ignore"):
                pitfall.run(lifted, setting)
        for name, x in arrays.items():
            np.testing.assert_array_equal(x, before[name])


def test_mistakes_in_chunks_need_a_chunk() -> None:
    lifted, setting, _ = calls("linear_attention")[0]
    for mistake in _below(InChunks) - {InChunks}:
        if mistake.methods == ("linear_attention",):
            assert mistake.run(1, lifted, setting) is None
