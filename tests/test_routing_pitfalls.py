"""The pitfalls of routing and decoding: their references are right, no two are the same, and each says what it is."""

from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest

from conformance.adequacy import leaves_budget, lift, run_suspect, suspects
from conformance.cases.shapes import Stage
from conformance.cases.strategies import random_case
from conformance.judge import compare, settled
from conformance.pitfalls import pitfalls_for
from conformance.pitfalls.capacity import Capacity
from conformance.pitfalls.decoding import Accept, Residual
from conformance.pitfalls.dense import Steps
from conformance.pitfalls.depths import Depths
from conformance.pitfalls.experts import Layer
from conformance.pitfalls.group_experts import GroupExperts
from conformance.pitfalls.load_balance import SwitchLoss, Variation
from conformance.pitfalls.routing import Gating
from conformance.pitfalls.sampling import Sampling
from conformance.pitfalls.several_tokens import SeveralTokens
from conformance.registry import Implementation
from oracle import METHODS
from oracle.conditions import condition_names
from oracle.readings import EXACT_KINDS, budget, expected
from oracle.readings.contract import CONTRACTS

SMALL = Stage("small", 1.0, 20, 4000)
REFERENCES = {
    "moe_topk_gating": Gating, "switch_load_balance_loss": SwitchLoss, "load_balance_cv": Variation, "expert_capacity": Capacity,
    "speculative_accept": Accept, "speculative_residual": Residual, "speculative_sampling": Sampling,
    "multi_token_prediction": SeveralTokens, "moe_layer": Layer, "mixture_of_depths": Depths,
    "grouped_query_attention_shared_experts": GroupExperts,
}  # fmt: skip
LEAST = {
    "moe_topk_gating": 25, "switch_load_balance_loss": 9, "load_balance_cv": 6, "expert_capacity": 6, "speculative_accept": 11,
    "speculative_residual": 9, "speculative_sampling": 18, "multi_token_prediction": 14, "moe_layer": 18, "mixture_of_depths": 10,
    "grouped_query_attention_shared_experts": 8,
}  # fmt: skip
CONVENTIONS = {
    "moe_topk_gating": ({}, {"group_score": "best"}), "switch_load_balance_loss": ({}, {"fraction": "of-tokens"}),
    "expert_capacity": ({}, {"rounding": "down"}), "speculative_accept": ({}, {"ties": "rejected"}),
    "speculative_residual": ({}, {"nothing_left": "zeros"}), "speculative_sampling": ({}, {"ties": "rejected"}),
    "moe_layer": ({}, {"priority": "choice"}),
}  # fmt: skip
EVERY = pytest.mark.parametrize("method", REFERENCES)


@cache
def drawn(method, count, dtype="float32"):
    implementation, rng = Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords), Random(11)
    return tuple(random_case(rng, implementation, dtype, SMALL) for _ in range(count))


def wanted_of(case, arguments):
    bounds = budget(METHODS[case.method], arguments, CONTRACTS[case.dtype])
    specs = METHODS[case.method].signature.outputs
    return tuple(expected(bound, case.output_dtype(spec)) for bound, spec in zip(bounds, specs, strict=True))


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_steps_stay_within_the_budget(method, dtype):
    for case in drawn(method, 60, dtype):
        for conventions in CONVENTIONS.get(method, ({},)):
            arguments = {**case.arguments(), **conventions}
            with np.errstate(all="ignore"):
                outputs = REFERENCES[method](*lift(case, arguments)).outputs()
            outputs = [
                one if one.dtype.kind in EXACT_KINDS else one.astype(form.dtype)
                for one, form in zip(outputs, map(case.output_dtype, METHODS[method].signature.outputs), strict=True)
            ]
            wanted = settled(outputs, wanted_of(case, arguments))
            assert all(compare(one, want)[1].all() for one, want in zip(outputs, wanted, strict=True)), str(case)


@EVERY
def test_no_two_pitfalls_are_the_same(method):
    apart, listed = set(), suspects(method)
    for case in drawn(method, 150):
        for conventions in CONVENTIONS.get(method, ({},)):
            arguments = {**case.arguments(), **conventions}
            lifted, setting = lift(case, arguments)
            wanted = wanted_of(case, arguments)
            outputs = {suspect.name: run_suspect(suspect, lifted, setting) for suspect in listed}
            wrong = {name: leaves_budget(got, wanted) for name, got in outputs.items()}
            for one, other in combinations(outputs, 2):
                if wrong[one] != wrong[other] or (wrong[one] and differ(outputs[one], outputs[other])):
                    apart.add((one, other))
    names = [suspect.name for suspect in listed if condition_names(Steps.declared[method, suspect.name].needs) != {"dtype"}]
    assert set(combinations(names, 2)) - apart == set()


def differ(one, other):
    return any(not np.allclose(a, b, rtol=1e-2, equal_nan=True) for a, b in zip(one, other, strict=True))


@EVERY
def test_each_says_what_it_is_and_speaks_of_facts_only(method):
    case = drawn(method, 1)[0]
    known = set(REFERENCES[method](*lift(case, case.arguments())).facts())
    listed = pitfalls_for(method)
    assert len(listed) >= LEAST[method]
    for pitfall in listed:
        assert pitfall.name == pitfall.name.lower() and " " not in pitfall.name
        assert pitfall.explanation.endswith(".")
        assert pitfall.citation
        assert condition_names(Steps.declared[method, pitfall.name].needs) <= known
