"""The pitfalls of serving: each reference is right, each mistake is wrong somewhere, and no two are the same mistake."""

from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest

from conformance.adequacy import lift, suspects
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.pitfalls import pitfalls_for
from conformance.pitfalls.append import Append
from conformance.pitfalls.blockwise import Blockwise
from conformance.pitfalls.caches import Cache
from conformance.pitfalls.dense import Steps
from conformance.pitfalls.ring import RingSteps
from conformance.pitfalls.rotary import Rotary
from conformance.pitfalls.served import Paged, Varlen
from conformance.registry import Implementation, usual_tunables
from oracle import METHODS
from oracle.conditions import condition_names
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

REFERENCES = {
    "paged_attention": Paged, "append_to_pages": Append, "varlen_attention": Varlen, "rotary_embedding": Rotary,
    "ring_attention": RingSteps, "blockwise_transformer": Blockwise, "continuous_batching": Cache,
}  # fmt: skip
EACH = pytest.mark.parametrize("method", REFERENCES)
# Many times what rounding explains; 16 bits leave less room between rounding and a wrong precision.
FAR, FAR_IN_16_BITS = 10.0, 1.5
CASES = {"float32": 200, "bfloat16": 60, "float64": 6}
# A case of a cache is a whole script of calls.
SCRIPTS = {"float32": 70, "bfloat16": 14, "float64": 4}


@cache
def cases(method):
    """Drawn cases on plain numbers: with integers, options and NaN as they are drawn."""
    shared = usual_tunables(("world_size", "zigzag") if METHODS[method].sharded else ())
    implementation = Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords, tunables=shared)
    rng = Random(f"pitfalls {method}")
    return [
        random_case(rng, implementation, dtype, STAGES[0 if dtype == "float64" else index % 6 // 5])
        for dtype, count in (SCRIPTS if method == "continuous_batching" else CASES).items()
        for index in range(count)
    ]


@cache
def wanted(method, number):
    case = cases(method)[number]
    bounds = budget(METHODS[method], case.without_garbage().arguments(), CONTRACTS[case.dtype])
    return [expected(bound, "float64" if case.dtype == "float64" else "float32") for bound in bounds]


@cache
def lifted(method):
    return [lift(case, case.arguments()) for case in cases(method)]


@cache
def returned(method, name):
    pitfall = next(pitfall for pitfall in pitfalls_for(method) if pitfall.name == name)
    return [pitfall.run(given, tiled(setting) if pitfall.variants else setting) for given, setting in lifted(method)]


def tiled(setting):
    tunables = {**setting.tunables, "block_q": 16, "block_k": 16, "block_size": 4}
    return type(setting)(setting.dtype, setting.working, tunables, setting.layouts)


def distance(got, want):
    with np.errstate(all="ignore"):
        ratio = np.abs(got - want.value) / want.budget
    same = (got == want.value) | (np.isnan(got) & np.isnan(want.value)) | np.isinf(want.budget)
    return float(np.where(same, 0.0, np.where(np.isnan(ratio), np.inf, ratio)).max(initial=0.0))


@EACH
def test_the_steps_are_those_of_the_oracle(method):
    hostile = 0
    for number, case in enumerate(cases(method)):
        given, setting = lifted(method)[number]
        hostile += any(recipe.garbage for recipe in case.arrays.values())
        with np.errstate(all="ignore"):
            outputs = REFERENCES[method](given, setting).outputs()
        for got, want in zip(outputs, wanted(method, number), strict=False):
            assert got.dtype == setting.working
            assert distance(got, want) <= 1, str(case)
    assert hostile > 10 or METHODS[method].foreign is None


EVERY = [pytest.param(method, pitfall.name, id=f"{method}:{pitfall.name}") for method in REFERENCES for pitfall in pitfalls_for(method)]


@pytest.mark.parametrize(("method", "name"), EVERY)
def test_each_pitfall_is_far_off_somewhere(method, name):
    for number, outputs in enumerate(returned(method, name)):
        far = FAR_IN_16_BITS if cases(method)[number].dtype == "bfloat16" else FAR
        if outputs is not None and any(distance(got, want) > far for got, want in zip(outputs, wanted(method, number), strict=False)):
            return
    raise AssertionError(f"{name} is nowhere far off")


@EACH
def test_no_two_pitfalls_are_the_same(method):
    alike = [pair for pair in combinations([pitfall.name for pitfall in pitfalls_for(method)], 2) if not apart(method, *pair)]
    assert alike == []


def apart(method, one, other):
    """Whether two mistakes differ by more than rounding on some call; where one does not apply, it means the right thing."""
    for number, (first, second) in enumerate(zip(returned(method, one), returned(method, other), strict=True)):
        if first is None and second is None:
            continue
        for index, want in enumerate(wanted(method, number)):
            a, b = (want.value if outputs is None else outputs[index] for outputs in (first, second))
            with np.errstate(invalid="ignore"):
                same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= 2 * want.budget)
            if not same.all():
                return True
    return False


@EACH
def test_there_are_enough_and_each_says_what_it_is(method):
    assert len(pitfalls_for(method)) >= 20
    assert len(suspects(method)) >= len(pitfalls_for(method))
    for pitfall in pitfalls_for(method):
        assert pitfall.explanation.endswith(".")
        assert pitfall.citation
        assert pitfall.methods == (method,)


@EACH
def test_conditions_name_facts_only(method):
    given, setting = lifted(method)[0]
    for pitfall in pitfalls_for(method):
        steps = Steps.declared[method, pitfall.name](given, tiled(setting))
        assert condition_names(steps.needs) <= set(steps.facts()), pitfall.name


CONVENTIONS = [
    pytest.param(method, name, value, id=f"{method}:{name}={value}")
    for method in REFERENCES
    for name, values in METHODS[method].conventions.items()
    for value in values[1:]
]


@pytest.mark.parametrize(("method", "name", "value"), CONVENTIONS)
def test_the_steps_follow_declared_conventions(method, name, value):
    moved = 0
    for case in cases(method)[:60]:
        meaning = {name: value}
        given, setting = lift(case, {**case.arguments(meaning), **meaning})
        plain = case.without_garbage().arguments(meaning)
        with np.errstate(all="ignore"):
            outputs = REFERENCES[method](given, setting).outputs()
        bounds = budget(METHODS[method], {**plain, **meaning}, CONTRACTS[case.dtype])
        for got, bound in zip(outputs, bounds, strict=False):
            want = expected(bound, "float32")
            assert distance(got, want) <= 1, str(case)
            moved += not np.array_equal(want.value, METHODS[method](**plain), equal_nan=True)
    assert moved >= 3
