"""Cases: printed, parsed, made into arrays, drawn and shrunk."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.cases import ArrayRecipe, Case, CaseError, parse_case
from conformance.cases.layouts import LAYOUTS, broadcast_axis, lay_out
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import cases, random_case
from conformance.diagnosis.shrink import keeps, shrink, simpler
from conformance.judge import Finding
from conformance.registry import Implementation, Tunable

ALL = ("mask", "bias", "causal", "window", "softcap", "scale", "sinks")
EVERYTHING = Implementation("x", "attention", "numpy", "x:y", options=ALL, tunables={"block_k": Tunable("block")})
PLAIN = Implementation("x", "attention", "numpy", "x:y")


def drawn(implementation=EVERYTHING, count=300, seed=0, stage=STAGES[0]):
    rng = Random(seed)
    return [random_case(rng, implementation, "float32", stage) for _ in range(count)]


@given(st.sampled_from(STAGES).flatmap(lambda stage: cases(EVERYTHING, "bfloat16", stage)))
def test_a_case_is_one_line_and_the_line_is_the_case(case):
    line = str(case)
    assert "\n" not in line
    assert parse_case(line) == case


def test_arrays_have_the_shapes_and_dtypes_of_the_signature():
    for case in drawn():
        arguments = case.arguments()
        assert arguments["q"].shape == tuple(case.dims[dim] for dim in "bhld")
        assert arguments["v"].dtype == np.float32
        sizes = case.specification.check(arguments)
        assert sizes == case.dims


def test_a_case_makes_the_same_arrays_every_time():
    for case in drawn(count=50):
        once, twice = case.arguments(), parse_case(str(case)).arguments()
        assert all(np.array_equal(once[name], twice[name]) for name in case.arrays)


def test_garbage_lies_only_where_nothing_may_read():
    hit = 0
    for case in drawn(count=600):
        arguments = case.arguments()
        huge = np.abs(arguments["v"]) > 1e25
        hit += huge.any()
        if huge.any():
            assert case.arrays["v"].garbage
            clean = {**arguments, "v": np.where(huge, 0, arguments["v"]), "k": np.where(np.abs(arguments["k"]) > 1e25, 0, arguments["k"])}
            assert np.array_equal(case.specification(**arguments), case.specification(**clean))
    assert hit > 10


def test_cases_reach_every_option_pair_and_the_edges_of_tiles():
    seen, lengths = set(), set()
    for case in drawn(count=600, stage=STAGES[1]):
        features = sorted({*case.options, *(set(case.arrays) - set("qkv"))})
        seen |= {(a, b) for a in features for b in features if a < b}
        lengths.add(case.dims["s"])
    assert len(seen) == len(ALL) * (len(ALL) - 1) // 2
    assert {15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129} <= lengths


def test_packed_documents_are_drawn_often():
    masks = [case.arguments()["mask"] for case in drawn(count=1200, stage=STAGES[1]) if "mask" in case.arrays]
    square = [mask for mask in masks if mask.ndim > 1 and mask.shape[-1] == mask.shape[-2] > 1]
    first = [mask.argmax(axis=-1) for mask in square]
    packed = [np.array_equal(mask, ids[..., :, None] == ids[..., None, :]) and ids.any() for mask, ids in zip(square, first, strict=True)]
    assert sum(packed) >= 40


@pytest.mark.parametrize("seed", range(3))
def test_full_tiles_of_queries_meet_a_partial_tile_of_keys(seed):
    dims = [(case.dims["l"], case.dims["s"]) for case in drawn(PLAIN, count=300, seed=seed, stage=STAGES[1])]
    for tile in (16, 32, 64, 128):
        assert sum(queries % tile == 0 < queries and keys % tile != 0 for queries, keys in dims) >= 15, tile


def test_an_implementation_is_never_passed_an_option_that_it_does_not_take():
    assert all(not case.options and set(case.arrays) == set("qkv") for case in drawn(PLAIN))


def test_restrictions_are_kept():
    restricted = Implementation("x", "attention", "numpy", "x:y", options=ALL, restrictions={"s > 0 and h == g": "so it is"})
    assert all(case.dims["s"] > 0 and case.dims["h"] == case.dims["g"] for case in drawn(restricted))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_the_memory_and_not_the_values(layout):
    values = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)
    repeated = broadcast_axis(layout, values.shape, ("b", "g", "s", "d"))
    if repeated is not None:
        values[:] = np.take(values, [0], axis=repeated)
    base, view = lay_out(values, layout, repeated)
    assert base.ndim == 1
    assert np.array_equal(view, values)
    assert np.shares_memory(base, view)
    assert layout == "contiguous" or not view.flags.c_contiguous


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("attention", "should start with a method"),
        ("attention float7 b=1", "dtype='float7'"),
        ("attention float32 b", "should be name=value"),
        ("attention float32 b=x", "should be a Python literal"),
        ("attention float32 b=1 q=normal", "should look like name=recipe"),
        ("attention float32 b=1 q=normal(0)@sideways", "its layout should be one of"),
        ("attention float32 b=1", "h is missing"),
    ],
)
def test_a_line_that_is_no_case_says_which_part_is_wrong(line, message):
    with pytest.raises(CaseError, match=message.replace("(", r"\(")):
        parse_case(line)


def finding_of(case, ratio=1e6):
    return Finding("wrong-value", case, "wrong", ratio=ratio)


def test_every_simpler_case_that_is_tried_is_consistent_and_different():
    for case in drawn(count=40):
        for candidate in simpler(case):
            assert candidate != case
            if candidate.consistent:
                candidate.arguments()


@pytest.mark.parametrize(
    ("condition", "dims"),
    [
        (lambda case: case.dims["s"] >= 17, {"s": 17}),
        (lambda case: case.dims["l"] != case.dims["s"], {"l": 1, "s": 2}),
        (lambda case: case.dims["h"] // case.dims["g"] >= 3, {"h": 3, "g": 1}),
    ],
)
def test_shrinking_finds_the_smallest_case_of_a_condition(condition, dims):
    start = next(case for case in drawn(seed=3, stage=STAGES[1]) if condition(case) and min(case.dims.values()) > 0)
    small = shrink(finding_of(start), lambda case: finding_of(case) if condition(case) else None, lambda case: True, 2000, 60.0).case
    assert {name: small.dims[name] for name in dims} == dims
    assert not small.options
    assert all(recipe in (ArrayRecipe("normal"), ArrayRecipe("zeros")) for recipe in small.arrays.values())


def test_shrinking_does_not_slide_to_the_threshold():
    start = next(case for case in drawn(stage=STAGES[1]) if case.dims["s"] > 100)

    def examine(case: Case):
        return finding_of(case, ratio=case.dims["s"] / 2)

    assert shrink(finding_of(start, ratio=start.dims["s"] / 2), examine, lambda case: True, 2000, 60.0).ratio >= start.dims["s"] / 20


def test_a_finding_of_another_kind_is_not_the_same():
    case = drawn(count=1)[0]
    assert not keeps(finding_of(case), Finding("nan", case, "nan"))
    assert not keeps(finding_of(case), None)
