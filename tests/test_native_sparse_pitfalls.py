"""The pitfalls of native sparse attention: their reference is right, no two are the same, and none raises."""

from itertools import combinations
from random import Random

import numpy as np
import pytest

from conformance.adequacy import leaves_budget, lift, run_suspect, suspects
from conformance.cases.shapes import Stage
from conformance.cases.strategies import random_case
from conformance.judge import compare
from conformance.pitfalls import Setting, pitfalls_for
from conformance.pitfalls.dense import Steps
from conformance.pitfalls.native_sparse import NativeSparse
from conformance.registry import Implementation
from oracle import METHODS
from oracle.conditions import condition_names
from oracle.formats import FORMATS
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

METHOD = "native_sparse_attention"
SMALL = Stage("small", 1.0, 24, 3000)
CONVENTIONS = ({}, {"forced_blocks": "first-and-two-local"}, {"window_bounds": "reach"})


def drawn(count, dtype="float32"):
    implementation, rng = Implementation("any", METHOD, "numpy", "any:any", options=METHODS[METHOD].keywords), Random(7)
    return [random_case(rng, implementation, dtype, SMALL) for _ in range(count)]


def wanted_of(arguments, dtype):
    [bounded] = budget(METHODS[METHOD], arguments, CONTRACTS[dtype])
    return expected(bounded, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("conventions", CONVENTIONS)
def test_the_steps_stay_within_the_budget(dtype, conventions):
    for case in drawn(40, dtype):
        arguments = {**case.arguments(), **conventions}
        with np.errstate(all="ignore"):
            [out] = NativeSparse(*lift(case, arguments)).outputs()
        assert compare(out.astype(FORMATS[dtype].dtype), wanted_of(arguments, dtype))[1].all(), str(case)


def test_no_two_pitfalls_are_the_same():
    apart = set()
    listed = suspects(METHOD)
    for case in drawn(120):
        for conventions in CONVENTIONS[:2]:
            arguments = {**case.plain().arguments(), **conventions}
            lifted, setting = lift(case, arguments)
            wanted = wanted_of(arguments, "float32")
            outputs = {suspect.name: run_suspect(suspect, lifted, setting) for suspect in listed}
            wrong = {name: leaves_budget(got, (wanted,)) for name, got in outputs.items()}
            for one, other in combinations(outputs, 2):
                if wrong[one] != wrong[other]:
                    apart.add((one, other))
                elif wrong[one] and not np.allclose(outputs[one][0], outputs[other][0], rtol=1e-2, equal_nan=True):
                    apart.add((one, other))
    names = [suspect.name for suspect in listed if suspect.name != "computed-in-float32"]
    same = set(combinations(names, 2)) - apart
    assert same == set()


def test_each_says_what_it_is_and_speaks_of_facts_only():
    case = drawn(1)[0]
    known = set(NativeSparse(*lift(case, case.arguments())).facts())
    listed = pitfalls_for(METHOD)
    assert len(listed) >= 50
    for pitfall in listed:
        assert pitfall.name == pitfall.name.lower() and " " not in pitfall.name
        assert pitfall.explanation.endswith(".")
        assert pitfall.citation
        assert condition_names(Steps.declared[METHOD, pitfall.name].needs) <= known


@pytest.mark.parametrize("empty", ["b", "l", "e"])
def test_empty_calls_raise_nothing(empty):
    sizes = {"b": 2, "l": 5, "e": 3, empty: 0}
    b, length, e = sizes.values()
    arguments = {
        "q": np.ones((b, 2, length, 3), np.float32), "k": np.ones((b, 1, length, 3), np.float32),
        "v": np.ones((b, 1, length, e), np.float32), "gates": np.ones((b, 2, length, 3), np.float32), "compress_block": 2,
        "compress_stride": 1, "select_block": 2, "select_count": 1, "window": 2,
    }  # fmt: skip
    for pitfall in pitfalls_for(METHOD):
        for options in ({}, {"scale": 0.0, "compress_weights": np.ones(2, np.float32)}):
            outputs = pitfall.run({**arguments, **options}, Setting("float32", np.dtype(np.float32), {}))
            assert outputs is None or outputs[0].shape == (b, 2, length, e), pitfall.name
