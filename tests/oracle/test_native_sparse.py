"""Native sparse attention: held against the definition query by query, and what the readings make of it."""

import math
from random import Random

import numpy as np
import pytest
from rounding_machine import Machine
from test_bounded_attention import machines, on_machine

from conformance.cases.shapes import Stage
from conformance.cases.strategies import random_case
from conformance.judge import compare
from conformance.registry import Implementation
from oracle import METHODS, OptionError, ShapeError
from oracle.native_sparse import shared_strides
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS
from oracle.readings.decisions import Undecided

METHOD = METHODS["native_sparse_attention"]
SMALL = Stage("small", 1.0, 12, 400)
CONVENTIONS = [{}, {"forced_blocks": "first-and-two-local"}, {"window_bounds": "reach"}]
SIZES = {"compress_block": 4, "compress_stride": 2, "select_block": 4, "select_count": 2, "window": 3}


def drawn(count, dtype="float64", seed=0):
    implementation, rng = Implementation("any", METHOD.name, "numpy", "any:any", options=METHOD.keywords), Random(seed)
    return [random_case(rng, implementation, dtype, SMALL) for _ in range(count)]


def example(rng, length, heads=2, groups=1, width=3, gain=1.0):
    shapes = {"q": (1, heads, length, width), "k": (1, groups, length, width), "v": (1, groups, length, 2)}
    arrays = {name: rng.standard_normal(shape) * (gain if name == "q" else 1.0) for name, shape in shapes.items()}
    return {**arrays, "gates": rng.random((1, heads, length, 3))}


def softmax_of(query, keys, scale):
    logits = [scale * math.fsum(a * b for a, b in zip(query, key, strict=True)) for key in keys]
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / math.fsum(weights) for weight in weights]


def mean_by(weights, rows):
    return sum((weight * row for weight, row in zip(weights, rows, strict=True)), np.zeros_like(rows[0]))


def one_query(q, k, v, gates, t, options):
    """The outputs (R, Dv) of the query heads q (R, D) of a group at position t, by the formulas of the paper."""
    block, stride, select, count = (options[name] for name in ("compress_block", "compress_stride", "select_block", "select_count"))
    scale, taps = options.get("scale", q.shape[1] ** -0.5), options.get("compress_weights")
    taps = [1 / block] * block if taps is None else taps
    starts = [s for s in range(0, len(k), stride) if s + block - 1 <= t]
    keys, values = ([mean_by(taps, list(x[s : s + block])) for s in starts] for x in (k, v))
    weights = [softmax_of(query, keys, scale) if starts else [] for query in q]

    def importance(j):
        covered = strides_of(j * select, select, stride)
        each = [p[i] * len(strides_of(s, block, stride) & covered) for p in weights for i, s in enumerate(starts)]
        return math.fsum(each)

    begun, own = range(t // select + 1), t // select
    forced = {0, own, max(own - 1, 0)} if options.get("forced_blocks") == "first-and-two-local" else set()
    ranked = sorted((j for j in begun if j not in forced), key=lambda j: (-round(importance(j), 11), j))
    chosen = forced | set(ranked[: max(count - len(forced), 0)])
    selected = [s for s in range(t + 1) if s // select in chosen]
    reach = options["window"] - (options.get("window_bounds") != "reach")
    near = range(max(t - reach, 0), t + 1)
    out = []
    for query, gate, p in zip(q, gates, weights, strict=True):
        branches = [mean_by(p, values) if starts else np.zeros(v.shape[1])]
        branches += [mean_by(softmax_of(query, k[list(read)], scale), list(v[list(read)])) for read in (selected, near)]
        out.append(mean_by(gate, branches))
    return out


def strides_of(start, size, stride):
    return set(range(start // stride, (start + size) // stride))


@pytest.mark.parametrize("conventions", CONVENTIONS)
def test_every_query_gets_what_the_formulas_of_the_paper_give(conventions):
    chosen = 0
    for case in drawn(150):
        case = case.plain()
        options = {**case.arguments(), **conventions}
        q, k, v, gates = (options.pop(name) for name in ("q", "k", "v", "gates"))
        out = METHOD.spec(q, k, v, gates, **options)
        group = q.shape[1] // k.shape[1]
        for b, g, t in np.ndindex(q.shape[0], k.shape[1], q.shape[2]):
            own = slice(g * group, (g + 1) * group)
            want = one_query(q[b, own, t], k[b, g], v[b, g], gates[b, own, t], t, options)
            np.testing.assert_allclose(out[b, own, t], want, rtol=1e-11, atol=1e-11, err_msg=f"{case} {conventions} {t}")
            chosen += t // options["select_block"] + 1 > options["select_count"]
    assert chosen > 100  # queries that have a choice


def test_importance_is_added_up_as_equation_9_says_with_blocks_counted_from_1():
    for block, stride, select, length in ((32, 16, 64, 300), (4, 4, 8, 30), (6, 2, 6, 25), (1, 1, 3, 10), (8, 4, 8, 7)):
        compressed, selected = max(length - block + stride, 0) // stride, -(-length // select)
        counts = np.zeros((compressed, selected))
        for j in range(1, selected + 1):
            for m in range(select // stride):
                for n in range(block // stride):
                    index = (select // stride) * j - m - n
                    if 1 <= index <= compressed:
                        counts[index - 1, j - 1] += 1
        np.testing.assert_array_equal(shared_strides(compressed, selected, block, stride, select), counts)


@pytest.mark.parametrize("conventions", CONVENTIONS)
def test_the_value_lies_in_its_enclosure_to_one_part_in_1e12(conventions):
    for case in drawn(25, seed=1):
        arguments = {**case.plain().arguments(), **conventions}
        [got], [exact] = value(METHOD, arguments), enclosure(METHOD, arguments)
        taps = np.abs(arguments.get("compress_weights", np.ones(1))).sum()
        scale = np.abs(arguments["v"]).max(initial=1e-300) * max(taps, 1.0) * 3
        assert (np.abs(got - midpoints(exact)) + radii(exact) <= 1e-12 * scale).all(), str(case)


@pytest.mark.parametrize("form", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("seed", range(4))
def test_what_a_rounding_machine_computes_is_right_for_some_legitimate_choice(seed, form):
    rng, worst, undecided = np.random.default_rng(seed), 0.0, 0
    nearest = Machine(form)
    for gain, conventions in ((1.0, CONVENTIONS[0]), (10.0, CONVENTIONS[1]), (0.0, CONVENTIONS[2]), (60.0, CONVENTIONS[0])):
        arrays = {name: nearest.stored(x) for name, x in example(rng, 23, heads=4, groups=2, gain=gain).items()}
        arguments = {**arrays, **SIZES, **conventions}
        [claimed] = budget(METHOD, arguments, nearest.contract)
        undecided += isinstance(claimed, Undecided)
        wanted = expected(claimed, form)
        for machine in machines(form, rng):
            if gain == 0 and machine.rounding != "nearest":
                continue  # a machine that rounds what is exact already breaks ties that no other does
            [out] = on_machine(METHOD, machine, arguments)
            ratio, agrees = compare(nearest.stored(out.value), wanted)
            assert agrees.all(), (gain, conventions, machine)
            worst = max(worst, float(ratio.max()))
    assert undecided
    assert worst > 0.02  # a budget that nothing comes near would say nothing


def test_a_kernel_may_break_a_near_tie_either_way_but_not_an_exact_one():
    rng = np.random.default_rng(3)
    arguments = {**example(rng, 16, heads=1), **SIZES, "compress_block": 2, "select_block": 2, "select_count": 1}
    arguments["q"] *= 0  # all compressed blocks weigh the same, those that a power of two of them are seen exactly so
    [claimed] = budget(METHOD, arguments, CONTRACTS["float32"])
    wanted = expected(claimed, "float32")
    out = value(METHOD, arguments)[0].astype(np.float32)
    assert compare(out, wanted)[1].all()
    for t, tied in ((15, True), (7, True), (13, False), (9, False)):  # 8, 4, 7 and 5 blocks
        other = out.copy()
        first, last = arguments["v"][0, 0, :2].mean(axis=0), arguments["v"][0, 0, 2:4].mean(axis=0)
        other[0, 0, t] += arguments["gates"][0, 0, t, 1] * (last - first)
        assert compare(other, wanted)[1].all() == (not tied), t


def test_branches_without_anything_to_read_are_zero_and_empty_sequences_give_nothing():
    rng = np.random.default_rng(4)
    arguments = {**example(rng, 3), **SIZES}  # shorter than a compressed block
    only_compressed = {**arguments, "gates": arguments["gates"] * [1, 0, 0]}
    np.testing.assert_array_equal(METHOD(**only_compressed), np.zeros((1, 2, 3, 2)))
    assert METHOD(**{**example(rng, 0), **SIZES}).shape == (1, 2, 0, 2)


def test_with_all_blocks_chosen_the_selected_branch_is_causal_attention():
    rng = np.random.default_rng(5)
    arguments = {**example(rng, 13), **SIZES, "select_count": 4}
    arguments["gates"] = np.broadcast_to([0.0, 1.0, 0.0], arguments["gates"].shape)
    dense = METHODS["attention"](arguments["q"], arguments["k"], arguments["v"], causal=True)
    np.testing.assert_allclose(METHOD(**arguments), dense, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"compress_stride": 3}, ShapeError, "compressed blocks start at strides and end at one"),
        ({"select_block": 5}, ShapeError, "selection blocks start at strides and end at one"),
        ({"select_block": 2}, ShapeError, "no longer than a selection block"),
        ({"select_count": 0}, OptionError, "select_count=0, but should be an integer >= 1"),
        ({"window": None}, OptionError, "window is missing"),
        ({"gates": np.full((1, 2, 6, 3), 1.5)}, OptionError, "should be from 0 to 1"),
        ({"gates": np.ones((1, 2, 6, 2))}, ShapeError, "gates has branches=2, but should have branches=3"),
        ({"compress_weights": np.ones(3)}, ShapeError, "compress_weights has span=3, but should have span=4"),
        ({"forced_blocks": "some"}, OptionError, "should be one of none, first-and-two-local"),
    ],
)
def test_wrong_arguments_are_named_with_what_they_should_be(changed, error, words):
    arguments = {**example(np.random.default_rng(6), 6), **SIZES, **changed}
    with pytest.raises(error, match=words):
        METHOD(**arguments)
