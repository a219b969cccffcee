"""Cases reach the edges at which kernels of served and routed models go wrong, with every seed."""

import math
from fractions import Fraction
from random import Random

import numpy as np
import pytest

from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.cases.values import make_floats
from conformance.registry import Implementation
from oracle.formats import FORMATS


def drawn(method, seed, count, stages=STAGES, options=()):
    rng, implementation = Random(seed), Implementation("x", method, "numpy", "x:y", options=options)
    return [random_case(rng, implementation, "float32", stage) for stage in stages for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_packed_sequences_end_one_before_and_one_after_a_tile_and_another_follows(seed):
    cases = drawn("varlen_attention", seed, 200, STAGES[1:2])
    lengths = [np.diff(case.arguments()["cu_seqlens_k"]) for case in cases]
    assert all(edges.sum() == case.dims["s"] and (edges >= 0).all() for edges, case in zip(lengths, cases, strict=True))
    for tile in (8, 16):
        for near in (-1, 0, 1):
            assert sum((edges[:-1] > tile).any() and ((edges[:-1] - near) % tile == 0)[edges[:-1] > tile].any() for edges in lengths) >= 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["paged_attention", "append_to_pages"])
def test_large_blocks_are_not_only_powers_of_two(method, seed):
    sizes = [case.dims["block_size"] for case in drawn(method, seed, 100)]
    assert sum(size > 8 and size & (size - 1) > 0 for size in sizes) >= 10


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_last_uniforms_are_the_largest_numbers_below_one(dtype):
    form = FORMATS[dtype]
    made = make_floats("last_uniforms", 0, 1.0, (50,), form).astype(np.float64)
    assert (made < 1).all()
    assert made.max() == float(np.nextafter(np.ones((), form.dtype), np.zeros((), form.dtype)))


@pytest.mark.parametrize("seed", range(3))
def test_little_is_left_of_the_difference_of_some_distributions(seed):
    left = []
    for case in drawn("speculative_residual", seed, 200):
        arguments = case.arguments()
        p, q = (arguments[name].astype(np.float64) for name in "pq")
        left.extend(np.maximum(p - q, 0).sum(axis=-1).ravel())
    assert sum(0 < rest < 1e-5 for rest in left) >= 5


@pytest.mark.parametrize("seed", range(3))
def test_capacities_are_drawn_that_float32_gets_wrong_and_doubles_in_the_natural_order_do_not(seed):
    wrong = 0
    for case in drawn("expert_capacity", seed, 200, options=("tokens", "experts", "k", "capacity_factor")):
        tokens, experts, k, factor = (
            case.options.get(name, 1.0 if name == "capacity_factor" else 1) for name in ("tokens", "experts", "k", "capacity_factor")
        )
        exact = math.ceil(Fraction(tokens * k, experts) * Fraction(factor))
        assert exact == math.ceil(tokens * k / experts * factor) == math.ceil(tokens / experts * k * factor)
        wrong += exact != math.ceil(np.float32(tokens) * np.float32(k) / np.float32(experts) * np.float32(factor))
    assert wrong >= 5


@pytest.mark.parametrize("seed", range(3))
def test_loads_are_also_sums_of_weights(seed):
    loads = [case.arguments()["loads"] for case in drawn("load_balance_cv", seed, 100)]
    assert sum((one % 1 != 0).any() and one.max(initial=0) > 1 for one in loads) >= 10
    assert sum(0 < one.max(initial=0) < 0.1 for one in loads) >= 10
