"""The power of the suite: how surely it finds a planted mistake, to what it shrinks it, and that every comparison rejects.

The seeds are fixed, so each share is a fact about these twenty hunts. It is stated with a margin, for a change of the
generators moves the cases; what falls below it has lost power.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from conformance.cases import parse_case
from conformance.hunting.hunt import Effort, Hunt
from conformance.isolation.calling import Output, Response
from conformance.isolation.sandbox import InProcess
from conformance.judge import Judge
from conformance.registry import Implementation

PLANTED = Path(__file__).parents[1] / "mutants" / "numpy_wrong"
KERNELS = Path(__file__).with_name("kernels.py")
SEEDS = range(20)
PLAIN = {"b": 1, "h": 1, "l": 1, "d": 1, "g": 1, "e": 1}


class Enough(Exception):
    """The hunt has examined as many cases as the statement allows."""


@pytest.fixture(scope="module")
def sandbox():
    # Mistakes divide by zero and overflow; in this process that would warn.
    with InProcess() as made, np.errstate(all="ignore"), threadpool_limits(1):
        yield made


def hunt(sandbox, target, method="attention", dtype="float32", *, within=math.inf, **effort):
    """What the first cases of a hunt come to; None if they find nothing."""

    def progress(running):
        if running.examples >= within:
            raise Enough

    [implementation] = sandbox.load(str(target), method=method, backend="numpy")
    try:
        return Hunt(implementation, dtype, sandbox, Effort(seconds=math.inf, **effort), progress=progress).run()
    except Enough:
        return None


@dataclass(frozen=True)
class Planted:
    """A mistake, and in how many of twenty hunts so many cases must find it."""

    kernel: str
    within: int
    hunts: int
    method: str = "attention"
    dtype: str = "float32"

    @property
    def target(self):
        return f"{PLANTED / self.kernel}.py:{'kernel' if self.method == 'attention' else self.method}"


BLATANT_TO_SUBTLE = (
    Planted("lse_of_first_head_in_group", 10, 18, "attention_with_lse"),
    Planted("tail_padding_keys_scored_zero", 12, 18),
    Planted("base_two_exponential_without_factor", 15, 18),
    Planted("exponential_without_maximum", 15, 18),
    Planted("key_heads_tiled", 25, 18),
    Planted("causal_diagonal_top_left", 20, 18),
    Planted("layout_cached_by_shape", 20, 18),
    Planted("mask_of_earlier_call", 35, 18),
    Planted("merge_empty_parts_give_nan", 20, 18, "merge_attention_states"),
    Planted("accumulator_keeps_old_maximum", 25, 18),
    Planted("empty_row_averages_values", 25, 18),
    Planted("causal_lost_when_mask_given", 90, 18),
    Planted("half_precision_logits_overflow", 50, 17, dtype="float16"),
    Planted("sentinel_minus_fifty_thousand", 105, 14),
)


@pytest.mark.parametrize("planted", BLATANT_TO_SUBTLE, ids=lambda planted: planted.kernel)
def test_a_planted_mistake_is_found_within_so_many_cases(planted, sandbox):
    results = [
        hunt(sandbox, planted.target, planted.method, planted.dtype, within=planted.within, seed=seed, diagnose=False) for seed in SEEDS
    ]
    found = [result.examples for result in results if result is not None]
    assert len(found) >= planted.hunts, found


def test_a_right_kernel_is_not_found_within_as_many_cases(sandbox):
    assert all(hunt(sandbox, f"{KERNELS}:right", within=30, seed=seed, diagnose=False) is None for seed in SEEDS)


@pytest.mark.parametrize(
    ("kernel", "method", "dims", "options"),
    [
        ("base_two_exponential_without_factor", "attention", {**PLAIN, "s": 2}, {}),
        ("tail_padding_keys_scored_zero", "attention", {**PLAIN, "s": 1}, {}),
        ("key_heads_tiled", "attention", {**PLAIN, "h": 4, "g": 2, "s": 1}, {}),
        ("window_left_one_short", "attention", {**PLAIN, "s": 2}, {"window": (1, None)}),
        ("lse_of_first_head_in_group", "attention_with_lse", {**PLAIN, "h": 2, "s": 1}, {}),
    ],
)
def test_a_finding_shrinks_to_the_smallest_call_that_shows_the_mistake(kernel, method, dims, options, sandbox):
    target = Planted(kernel, 0, 0, method).target
    for seed in range(3):
        [(finding, _)] = hunt(sandbox, target, method, seed=seed).findings
        case = finding.case
        assert (case.dims, case.options, set(case.arrays)) == (dims, options, {"q", "k", "v"})
        assert all(recipe.layout == "contiguous" and recipe.gain == 1 for recipe in case.arrays.values())


# The judge, with answers made by hand: one that is right in everything, and one wrong in each way.

CASE = parse_case("attention_with_lse bfloat16 b=1 h=2 l=3 d=4 g=1 s=5 e=2 q=normal(0) k=normal(1) v=normal(2) mask=late(0)[s]")
IMPLEMENTATION = Implementation("by hand", "attention_with_lse", "torch", "by:hand", options=("mask",))


@pytest.fixture(scope="module")
def judge():
    return Judge(IMPLEMENTATION, "bfloat16")


@pytest.fixture(scope="module")
def bounded(judge):
    return judge.expect(CASE, CASE.arguments())


@pytest.fixture
def right(bounded):
    out, lse = (np.broadcast_to(bound.value, shape) for bound, shape in zip(bounded, [(1, 2, 3, 2), (1, 2, 3)], strict=True))
    arrays = {"out": out.astype(ml_dtypes.bfloat16), "lse": lse.astype(np.float32)}
    return Response(tuple(Output(name, array, device="cpu", **described(array)) for name, array in arrays.items()), 2)


def described(array):
    return {} if array is None else {"shape": array.shape, "dtype": array.dtype.name}


def with_output(response, index, **changed):
    outputs = list(response.outputs)
    outputs[index] = replace(outputs[index], **described(changed.get("array")), **changed)
    return replace(response, outputs=tuple(outputs))


def with_element(response, index, value):
    array = response.outputs[index].array.copy()
    array.flat[-1] = value
    return with_output(response, index, array=array)


def test_the_judge_accepts_the_right_answer(judge, bounded, right):
    verdict = judge.judge(CASE, [right, right], bounded)
    assert verdict.finding is None
    assert verdict.ratio < 1


def out_of(response):
    return response.outputs[0].array


WRONG_ANSWERS = {
    "one element off by a hundredth": ("wrong-value", lambda r: with_element(r, 0, float(out_of(r).flat[-1]) * 1.01 + 0.01)),
    "one statistic off": ("wrong-value", lambda r: with_element(r, 1, r.outputs[1].array.flat[-1] + 0.01)),
    "one NaN": ("nan", lambda r: with_element(r, 0, np.nan)),
    "a statistic that is NaN": ("nan", lambda r: with_element(r, 1, np.nan)),
    "one infinity": ("infinity", lambda r: with_element(r, 0, np.inf)),
    "a statistic of minus infinity": ("infinity", lambda r: with_element(r, 1, -np.inf)),
    "all zero": ("wrong-value", lambda r: with_output(r, 0, array=np.zeros_like(out_of(r)))),
    "axes swapped": ("shape", lambda r: with_output(r, 0, array=out_of(r).swapaxes(1, 2))),
    "one axis too many": ("shape", lambda r: with_output(r, 0, array=out_of(r)[None])),
    "a shape that broadcasts": ("shape", lambda r: with_output(r, 0, array=out_of(r)[:, :1])),
    "a scalar": ("shape", lambda r: with_output(r, 1, array=np.float32(0)[None])),
    "wider elements": ("dtype", lambda r: with_output(r, 0, array=out_of(r).astype(np.float32))),
    "integers": ("dtype", lambda r: with_output(r, 0, array=out_of(r).astype(np.int32))),
    "no array": ("type", lambda r: with_output(r, 0, array=None, type="builtins.list")),
    "another device": ("device", lambda r: with_output(r, 0, device="meta")),
    "one output too few": ("type", lambda r: replace(r, outputs=r.outputs[:1], count=1)),
    "one output too many": ("type", lambda r: replace(r, count=3)),
    "an exception": ("exception", lambda r: Response(exception="ValueError: no")),
    "a graph": ("requires-grad", lambda r: with_output(r, 0, requires_grad=True)),
    "memory of an argument": ("aliases-input", lambda r: with_output(r, 1, aliases_input=True)),
    "an argument written to": ("input-changed", lambda r: replace(r, inputs_changed=("k",))),
    "memory of a later call": ("changed-later", lambda r: replace(r, changed_later=True)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil"), WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_the_judge_rejects(kind, spoil, judge, bounded, right):
    assert judge.judge(CASE, [spoil(right), right], bounded).finding.kind == kind


@pytest.mark.parametrize("spoil", [lambda r: with_element(r, 0, 9), lambda r: with_element(r, 1, np.nan)], ids=["value", "nan"])
def test_the_judge_rejects_a_second_call_that_is_wrong(spoil, judge, bounded, right):
    assert judge.judge(CASE, [right, spoil(right)], bounded).finding.kind == "unrepeatable"


def test_the_judge_leaves_the_warm_up_alone(judge, bounded, right):
    assert judge.judge(replace(CASE, warm=True), [with_element(right, 0, np.nan), right, right], bounded).finding is None
