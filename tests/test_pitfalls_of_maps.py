"""The pitfalls of differential and latent attention: their reference is right, and no two are the same mistake."""

from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest

from conformance.adequacy import lift, run_suspect, suspects
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.pitfalls import pitfalls_for
from conformance.pitfalls.differential import Differential
from conformance.pitfalls.latent import Latent
from conformance.registry import Implementation
from oracle import METHODS
from oracle.conditions import condition_names
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

STEPS = {"differential_attention": Differential, "latent_attention": Latent}
# Beyond what rounding explains of either mistake.
FAR = 10.0
# What is meant to be seen of some only where numbers are extreme.
CASES = 60


@cache
def drawn(method):
    rng, anything = Random(f"mistakes of {method}"), Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords)
    cases = [random_case(rng, anything, "float32", STAGES[index % 2]) for index in range(CASES)]
    return [case if index % 3 else case.plain() for index, case in enumerate(cases)]


@cache
def wanted(method):
    return [expected(budget(METHODS[method], case.arguments(), CONTRACTS["float32"])[0], "float32") for case in drawn(method)]


@cache
def returned(method):
    found = {}
    for suspect in suspects(method):
        found[suspect.name] = [run_suspect(suspect, *lift(case, case.arguments())) for case in drawn(method)]
    return found


@pytest.mark.parametrize("method", STEPS)
def test_the_steps_are_those_of_the_oracle(method):
    for case, want in zip(drawn(method), wanted(method), strict=True):
        steps = STEPS[method](*lift(case, case.arguments()))
        with np.errstate(all="ignore"):
            if case.size == 0 or steps.lost():
                continue
            got, *_ = steps.outputs()  # latent attention also has the logsumexp of dense attention
            assert (np.abs(got - want.value) <= want.budget).all(), str(case)


@pytest.mark.parametrize("method", STEPS)
def test_no_two_pitfalls_are_the_same(method):
    outputs, want = returned(method), wanted(method)

    def apart(one, other):
        for a, b, exact in zip(outputs[one], outputs[other], want, strict=True):
            first, second = (exact.value if x is None else x[0] for x in (a, b))
            with np.errstate(invalid="ignore"):
                if not (np.abs(first - second) <= FAR * exact.budget + np.abs(exact.value).max(initial=0.0) / 1000).all():
                    return True
        return False

    assert [pair for pair in combinations(outputs, 2) if not apart(*pair)] == []


@pytest.mark.parametrize("method", STEPS)
def test_there_are_enough_and_each_says_what_it_is(method):
    assert len(pitfalls_for(method)) >= 25
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
