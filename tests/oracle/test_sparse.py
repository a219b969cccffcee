"""Sparse attention: which keys a query reads, held against the definition pair by pair, and what the readings make of it."""

import math
from random import Random

import numpy as np
import pytest
from test_bounded_attention import STORED, worst_ratios

from conformance.cases.shapes import Stage
from conformance.cases.strategies import random_case
from conformance.registry import Implementation
from oracle import METHODS, OptionError, ShapeError
from oracle.readings import budget, enclosure, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

SMALL = Stage("small", 1.0, 12, 400)


def local_global(i, j, *, window, global_tokens, causal=False, global_self=True, global_rows=True, **_):
    if causal and j > i:
        return False
    if i == j and i in global_tokens and not global_self:
        return False
    return abs(i - j) <= window or j in global_tokens or (global_rows and i in global_tokens)


def strided(i, j, *, stride, **_):
    return j <= i and (j > i - stride or (i - j) % stride == 0)


def fixed(i, j, *, stride, c=1, **_):
    return j <= i and (math.floor(j / stride) == math.floor(i / stride) or j % stride in range(stride - c, stride))


def bigbird(i, j, *, block_size, window_blocks, global_blocks, random_blocks, **_):
    query, key = i // block_size, j // block_size
    near = key in range(query - (window_blocks - 1) // 2, query + (window_blocks - 1) // 2 + 1)
    return near or query < global_blocks or key < global_blocks or key in random_blocks[query]


def pattern(i, j, *, pattern, **_):
    return bool(pattern(i, j))


DEFINITIONS = {
    "local_global_attention": local_global,
    "strided_attention": strided,
    "fixed_attention": fixed,
    "bigbird_attention": bigbird,
    "pattern_attention": pattern,
}


def drawn(method, count, dtype="float64"):
    implementation, rng = Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords), Random(method)
    return [random_case(rng, implementation, dtype, SMALL) for _ in range(count)]


def reads(case, arguments, b, h, i, j):
    options = {name: value for name, value in arguments.items() if name not in ("q", "k", "v", "scale")}
    if case.method == "block_sparse_attention":
        mask, causal = options["block_mask"], options.get("causal", False)
        block = mask[min(b, mask.shape[0] - 1), min(h, mask.shape[1] - 1), i // options["block_q"], j // options["block_k"]]
        return bool(block) and (not causal or j <= i + case.dims["s"] - case.dims["l"])
    return DEFINITIONS[case.method](i, j, **options)


def row(q, keys, values, scale):
    """Softmax attention of one query to a list of keys, in plain sums."""
    if not keys:
        return np.zeros(values[0].shape if values else 0)
    logits = [math.fsum(a * b for a, b in zip(q, key, strict=True)) * scale for key in keys]
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / math.fsum(weights)


@pytest.mark.parametrize("method", [*DEFINITIONS, "block_sparse_attention"])
def test_a_query_reads_what_the_definition_says_pair_by_pair(method):
    for case in drawn(method, 60):
        case = case.plain()
        arguments = case.arguments()
        out = METHODS[method](**arguments)
        q, k, v = (arguments[name] for name in "qkv")
        scale = arguments.get("scale", q.shape[-1] ** -0.5)
        group = q.shape[1] // k.shape[1]
        for b, h, i in np.ndindex(q.shape[:3]):
            read = [j for j in range(k.shape[2]) if reads(case, arguments, b, h, i, j)]
            want = row(q[b, h, i], list(k[b, h // group, read]), list(v[b, h // group, read]), scale) if read else np.zeros(v.shape[-1])
            np.testing.assert_allclose(out[b, h, i], want, rtol=1e-12, atol=1e-12, err_msg=str(case))


@pytest.mark.parametrize("method", [*DEFINITIONS, "block_sparse_attention"])
def test_the_value_lies_in_its_enclosure_to_one_part_in_1e12(method):
    for case in drawn(method, 25):
        arguments = case.without_garbage().arguments()
        [got], [exact] = value(METHODS[method], arguments), enclosure(METHODS[method], arguments)
        scale = np.abs(arguments["v"]).max(initial=1e-300)
        assert (np.abs(got - midpoints(exact)) + radii(exact) <= 1e-12 * scale).all(), str(case)


@pytest.mark.parametrize("method", [*DEFINITIONS, "block_sparse_attention"])
def test_float32_arithmetic_stays_within_the_budget(method):
    worst = 0.0
    for case in drawn(method, 60, "float32"):
        arguments = case.arguments()
        [bounded] = budget(METHODS[method], case.without_garbage().arguments(), CONTRACTS["float32"])
        plain = {name: arguments[name] for name in ("q", "k", "v")}
        q, k, v = plain.values()
        group = q.shape[1] // k.shape[1]
        sizes = {"b": q.shape[0], "h": q.shape[1], "l": q.shape[2], "s": k.shape[2]}
        visible = np.broadcast_to(METHODS[method].visible(arguments, sizes), (*q.shape[:3], k.shape[2]))
        logits = np.einsum("bhld,bhsd->bhls", q, np.repeat(k, group, axis=1)) * np.float32(arguments.get("scale", q.shape[-1] ** -0.5))
        logits = np.where(visible, logits, -np.inf)
        top = logits.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(logits - np.where(np.isfinite(top), top, 0))
        total = weights.sum(axis=-1, keepdims=True)
        got = np.einsum("bhls,bhse->bhle", weights / np.where(total > 0, total, 1), np.repeat(v, group, axis=1))
        error = np.abs(got - bounded.value)
        allowed = bounded.full_error + np.finfo(np.float32).eps * np.abs(bounded.value) + np.finfo(np.float32).tiny
        assert (error <= allowed).all(), str(case)
        worst = max(worst, float((error / allowed).max(initial=0.0)))
    assert worst > 0.01  # a budget that nothing comes near would say nothing


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("method", [*DEFINITIONS, "block_sparse_attention"])
def test_the_budget_holds_on_a_rounding_machine_and_is_used(method, form):
    worst, rng = 0.0, np.random.default_rng(0)
    for case in drawn(method, 12):
        arguments = case.plain().arguments()
        for gain in (1.0, 10.0):
            [ratio] = worst_ratios(METHODS[method], {**arguments, "q": arguments["q"] * gain}, form, rng)
            assert ratio <= 1, str(case)
            worst = max(worst, ratio)
    assert worst > 0.1  # a budget that nothing comes near would say nothing


@pytest.mark.parametrize(
    ("method", "options", "error", "words"),
    [
        ("local_global_attention", {"window": 1}, OptionError, "global_tokens is missing, but should be a list of integers >= 0"),
        ("local_global_attention", {"window": 1, "global_tokens": [4]}, OptionError, "only positions below the length 4"),
        ("local_global_attention", {"window": -1, "global_tokens": []}, OptionError, "window=-1, but should be an integer >= 0"),
        ("strided_attention", {"stride": 0}, OptionError, "stride=0, but should be an integer >= 1"),
        ("fixed_attention", {"stride": 2, "c": 3}, ShapeError, "should satisfy c is None or c <= stride"),
        (
            "bigbird_attention",
            {"block_size": 2, "window_blocks": 2, "global_blocks": 0, "random_blocks": np.zeros((2, 1), int)},
            ShapeError,
            "the window is centred on the block of the query",
        ),
        (
            "bigbird_attention",
            {"block_size": 2, "window_blocks": 1, "global_blocks": 0, "random_blocks": np.full((2, 1), 2)},
            OptionError,
            r"random_blocks\[0, 0\]=2, but should be at least 0 and below m=2",
        ),
        (
            "bigbird_attention",
            {"block_size": 2, "window_blocks": 1, "global_blocks": 0, "random_blocks": np.zeros((3, 1), int)},
            ShapeError,
            "random_blocks has m=3, but should have m=2",
        ),
        (
            "bigbird_attention",
            {"block_size": 2, "window_blocks": 1, "global_blocks": 0, "random_blocks": np.zeros((2, 1))},
            OptionError,
            "random_blocks.dtype=float64, but should be an integer dtype",
        ),
        (
            "block_sparse_attention",
            {"block_q": 2, "block_k": 2, "block_mask": np.ones((1, 1, 2, 1), bool)},
            ShapeError,
            "n=1, but should have n=2",
        ),
        ("block_sparse_attention", {"block_q": 2, "block_k": 2, "block_mask": np.ones((2, 2), bool)}, ShapeError, "block_mask.ndim=2"),
        ("pattern_attention", {"pattern": 3}, OptionError, "pattern=3, but should be a function"),
    ],
)
def test_wrong_arguments_are_named_with_what_they_should_be(method, options, error, words):
    x = np.zeros((1, 1, 4, 2))
    with pytest.raises(error, match=words):
        METHODS[method](x, x, x, **options)


def test_queries_and_keys_of_different_number_are_refused_where_the_pattern_is_square():
    q, k = np.zeros((1, 1, 3, 2)), np.zeros((1, 1, 4, 2))
    with pytest.raises(ShapeError, match="l=3, d=2, g=1, s=4, e=2, but should satisfy l == s: as many queries as keys"):
        METHODS["strided_attention"](q, k, k, stride=2)
