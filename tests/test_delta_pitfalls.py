"""The pitfalls of the delta rules: their reference is right, each is wrong somewhere, and no two are the same mistake."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest

from conformance.pitfalls import Setting, pitfalls_for
from conformance.pitfalls.delta import ChunkedDelta, Delta
from oracle import METHODS
from oracle.conditions import condition_names
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

NAMES = ("delta_rule", "gated_delta_rule")
BOTH = pytest.mark.parametrize("method", NAMES)
CHUNK = {"chunk_size": 16}
# Many times what rounding explains; 16 bits leave less room between rounding and a wrong precision.
FAR, FAR_IN_16_BITS = 10.0, 3.0


def call(method, seed, dtype="float32", length=40, width=5, values=5, initial=True, longest=1.0, part=1.0, scale=None):
    """Arguments as a kernel of the storage dtype would get them."""
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((2, 2, 3, length, width))
    k *= longest / np.linalg.norm(k, axis=-1, keepdims=True)
    given = {"q": q, "k": k, "v": rng.standard_normal((2, 3, length, values)), "beta": part * rng.random((2, 3, length))}
    if method == "gated_delta_rule":
        given["g"] = -(part**2) * rng.random((2, 3, length))
    if initial:
        given["initial_state"] = rng.standard_normal((2, 3, width, values))
    working = np.float64 if dtype == "float64" else np.float32
    lifted = {name: x.astype(np.dtype(CONTRACTS[dtype].output.dtype)).astype(working) for name, x in given.items()}
    return lifted | ({} if scale is None else {"scale": scale}), Setting(dtype, np.dtype(working), CHUNK)


@cache
def calls(method):
    return (
        call(method, 0), call(method, 1, initial=False, values=3), call(method, 2, scale=0.7),
        call(method, 3, longest=0.7), call(method, 4, "bfloat16", length=1000, width=32, initial=False, part=0.05),
        call(method, 5, length=1),
    )  # fmt: skip


@cache
def wanted(method, number):
    given, setting = calls(method)[number]
    return [expected(bound, setting.working.name) for bound in budget(METHODS[method], given, CONTRACTS[setting.dtype])]


@cache
def returned(method, name):
    pitfall = next(pitfall for pitfall in pitfalls_for(method) if pitfall.name == name)
    return [pitfall.run(given, setting) for given, setting in calls(method)]


def distance(got, want):
    with np.errstate(all="ignore"):
        ratio = np.abs(got - want.value) / want.budget
    return float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0))


@BOTH
@pytest.mark.parametrize("steps", [Delta, ChunkedDelta])
def test_the_steps_are_those_of_the_oracle(method, steps):
    for number, (given, setting) in enumerate(calls(method)):
        for got, want in zip(steps(given, setting).outputs(), wanted(method, number), strict=True):
            assert got.dtype == setting.working
            assert distance(got, want) <= 1


EVERY = [pytest.param(method, pitfall.name, id=f"{method}:{pitfall.name}") for method in NAMES for pitfall in pitfalls_for(method)]


@pytest.mark.parametrize(("method", "name"), EVERY)
def test_each_pitfall_is_far_off_somewhere(method, name):
    ratios = [
        max(distance(got, want) for got, want in zip(outputs, wanted(method, number), strict=True))
        / (FAR_IN_16_BITS if calls(method)[number][1].dtype == "bfloat16" else FAR)
        for number, outputs in enumerate(returned(method, name))
        if outputs is not None
    ]
    assert max(ratios) > 1


@BOTH
def test_no_two_pitfalls_are_the_same(method):
    alike = [pair for pair in combinations([pitfall.name for pitfall in pitfalls_for(method)], 2) if not apart(method, *pair)]
    assert alike == []


def apart(method, one, other):
    """Whether two mistakes differ by more than rounding on some call; where one does not apply, it means the right thing."""
    for number, (first, second) in enumerate(zip(returned(method, one), returned(method, other), strict=True)):
        for index, want in enumerate(wanted(method, number)):
            a, b = (want.value if outputs is None else outputs[index] for outputs in (first, second))
            largest = np.abs(want.value).max(initial=0.0)
            with np.errstate(invalid="ignore"):
                if not (np.abs(a - b) <= FAR * want.budget + largest / 1000).all():
                    return True
    return False


@BOTH
def test_there_are_enough_and_each_says_what_it_is(method):
    assert len(pitfalls_for(method)) >= 20
    for pitfall in pitfalls_for(method):
        assert pitfall.explanation.endswith(".")
        assert pitfall.citation
        assert pitfall.methods == (method,)


def test_conditions_name_facts_only():
    given, setting = calls("gated_delta_rule")[0]
    mistakes = [mistake for mistake in below(Delta) if hasattr(mistake, "name")]
    assert len(mistakes) >= 30
    for mistake in mistakes:
        assert condition_names(mistake.needs) <= set(mistake(given, setting).facts()), mistake


def below(steps):
    return {steps}.union(*(below(one) for one in steps.__subclasses__()))


@pytest.mark.parametrize("needed", ["decays", "partly", "lengths"])
def test_facts_about_numbers_are_told_from_the_numbers(needed):
    plain, setting = call("gated_delta_rule", 7)
    plain |= {"g": 0 * plain["g"], "beta": 1 + 0 * plain["beta"]}
    telling = call("gated_delta_rule", 7, longest=0.5)[0]
    assert not Delta(plain, setting).facts()[needed]()
    assert Delta(telling, setting).facts()[needed]()
