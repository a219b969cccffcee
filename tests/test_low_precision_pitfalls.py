"""The pitfalls of quantisation: their references are right, and no two are the same mistake."""

from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest

from conformance.adequacy import lift, run_suspect, suspects
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.pitfalls import pitfalls_for
from conformance.pitfalls.dequantisation import Dequantize
from conformance.pitfalls.low_precision import Float8, Sage
from conformance.pitfalls.microscaling import ToBlocks
from conformance.pitfalls.microscaling_read import FromBlocks
from conformance.pitfalls.quantisation import Quantize
from conformance.probes import probe_cases
from conformance.registry import Implementation
from oracle import METHODS
from oracle.conditions import condition_names
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

STEPS = {
    "quantize": Quantize, "dequantize": Dequantize, "quantize_microscaling": ToBlocks, "dequantize_microscaling": FromBlocks,
    "fp8_attention": Float8, "sage_attention": Sage,
}  # fmt: skip
LEAST = dict(zip(STEPS, (25, 14, 18, 14, 30, 45), strict=True))
CASES = 80


@cache
def drawn(method):
    rng, anything = Random(f"mistakes of {method}"), Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords)
    return [*probe_cases(anything, "float32"), *(random_case(rng, anything, "float32", STAGES[index % 2]) for index in range(CASES))]


@cache
def wanted(method):
    bounds = (budget(METHODS[method], case.arguments(), CONTRACTS["float32"]) for case in drawn(method))
    return [tuple(expected(bound, "float64") for bound in bounded) for bounded in bounds]


@cache
def returned(method):
    found = {}
    for suspect in suspects(method):
        found[suspect.name] = [run_suspect(suspect, *lift(case, case.arguments())) for case in drawn(method)]
    return found


def agree(got, want):
    slack = 1e-6 * np.abs(want.value)  # of a float32 output
    return (np.abs(got.astype(np.float64) - want.value) <= want.budget + slack) | (want.budget == np.inf)


@pytest.mark.parametrize("method", STEPS)
def test_the_steps_are_those_of_the_oracle(method):
    for case, want in zip(drawn(method), wanted(method), strict=True):
        steps = STEPS[method](*lift(case, case.arguments()))
        with np.errstate(all="ignore"):
            if case.size == 0 or 0 in case.dims.values() or steps.lost():
                continue
            for got, own in zip(steps.outputs(), want, strict=True):
                assert agree(got, own).all(), str(case)


@pytest.mark.parametrize("method", STEPS)
def test_no_two_pitfalls_are_the_same(method):
    outputs, want = returned(method), wanted(method)

    def apart(one, other):
        for a, b, exact in zip(outputs[one], outputs[other], want, strict=True):
            for position, own in enumerate(exact):
                first, second = (own.value if x is None else x[position] for x in (a, b))
                with np.errstate(invalid="ignore"):
                    if not (np.abs(first - second) <= 3 * own.budget + 1e-5 * np.abs(own.value)).all():
                        return True
        return False

    assert [pair for pair in combinations(outputs, 2) if not apart(*pair)] == []


@pytest.mark.parametrize("method", STEPS)
def test_there_are_enough_and_each_says_what_it_is(method):
    assert len(pitfalls_for(method)) >= LEAST[method]
    for pitfall in pitfalls_for(method):
        assert pitfall.explanation.endswith(".")
        assert pitfall.citation
        assert pitfall.methods == (method,)


@pytest.mark.parametrize("method", STEPS)
def test_conditions_name_facts_only(method):
    case = next(case for case in drawn(method) if case.size)
    for mistake in below(STEPS[method]):
        if hasattr(mistake, "name"):
            assert condition_names(mistake.needs) <= set(mistake(*lift(case, case.arguments())).facts()), mistake


def below(steps):
    return {steps}.union(*(below(one) for one in steps.__subclasses__()))
