"""The budget of whole methods holds for the rounding machine; what leaves the analysis is refused or unbounded."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from rounding_machine import Machine
from test_bounded import ratio_of

from oracle import attention, attention_with_lse, merge_attention_states
from oracle.formats import FORMATS
from oracle.readings import budget, expected, value
from oracle.readings.bounded import Bounded, UnboundedOperation
from oracle.readings.contract import CONTRACTS
from oracle.readings.ops import as_operand, shifted_exponentials

STORED = ("float32", "float16", "bfloat16")
HOW = (("nearest", "direct", False), ("nearest", "base 2", True), ("random", "base 2", True), ("random", "direct", False))


def machines(form, rng):
    for rounding, exponentials, other in HOW:
        yield Machine(form, rounding, fused=other, exponentials=exponentials, reciprocals=other, rng=rng)


def floats_of(method):
    """Names of the arrays that a machine rounds."""
    return {spec.name for spec in method.signature.inputs if spec.kind not in ("bool", "int")}


def on_machine(method, machine, arguments):
    arrays = floats_of(method)
    lifted = {name: machine.lift(x) if name in arrays else x for name, x in arguments.items()}
    with np.errstate(all="ignore"):
        outputs = method.spec(**lifted)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def worst_ratios(method, arguments, form, rng):
    """Largest error over bound of each output, over all machines of a format."""
    arrays = floats_of(method)
    nearest = Machine(form)
    stored = {name: nearest.stored(x) if name in arrays else x for name, x in arguments.items()}
    claimed = budget(method, stored, nearest.contract)
    worst = [0.0] * len(claimed)
    for machine in machines(form, rng):
        outputs = on_machine(method, machine, stored)
        worst = [max(w, ratio_of(own.value, exact)) for w, own, exact in zip(worst, outputs, claimed, strict=True)]
    return worst


def random_case(rng, gain, queries=5, keys=9, width=8):
    """Arguments of attention with grouped heads and a few of its options."""
    q, k, v = (rng.standard_normal(shape) for shape in ((2, 4, queries, width), (2, 2, keys, width), (2, 2, keys, 3)))
    options = {
        "mask": rng.random((2, 1, queries, keys)) < 0.7, "bias": rng.standard_normal((4, 1, keys)), "sinks": rng.standard_normal(4),
        "causal": True, "window": (3, 4), "softcap": 5.0, "scale": float(rng.uniform(0.2, 1)), "empty_row": "mean",
        "softcap_order": "after-bias", "head_map": "interleaved", "window_bounds": "exclusive", "causal_alignment": "top-left",
    }  # fmt: skip
    chosen = {name: option for name, option in options.items() if rng.random() < 0.4}
    return {"q": q * gain, "k": k, "v": v * gain} | chosen


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("seed", range(12))
def test_the_budget_of_attention_holds_on_a_rounding_machine(seed, form):
    rng = np.random.default_rng(seed)
    for gain in (1e-3, 1.0, 10.0, 100.0):
        for convention in ("e", "2"):
            case = random_case(rng, gain)
            out, lse = worst_ratios(attention_with_lse, case | {"lse_base": convention}, form, rng)
            assert out <= 1, case
            assert lse <= 1, case


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("seed", range(4))
def test_the_budget_of_long_attention_holds_on_a_rounding_machine(seed, form):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((1, 1, length, 4)) for length in (3, 600, 600))
    direction = np.array([3.0, 0, 0, 0])
    cases = {
        "random": (q, k, v),
        "equal keys": (q, np.broadcast_to(k[:, :, :1], k.shape), v),
        "nearly equal keys": (q, k[:, :, :1] * (1 + 1e-5 * rng.standard_normal((600, 1))), np.abs(v)),
        "one key ahead": (q * 0 + direction, k * 0.1 + 11 * (np.arange(600)[:, None] == 0) * (direction > 0), np.abs(v)),
        "keys that rise": (q * 0 + direction, np.sort(np.abs(k), axis=2), v),
    }
    for name, arrays in cases.items():
        out, lse = worst_ratios(attention_with_lse, dict(zip("qkv", arrays, strict=True)), form, rng)
        assert out <= 1, name
        assert lse <= 1, name


@pytest.mark.parametrize("form", STORED)
def test_the_budget_of_merging_holds_on_a_rounding_machine(form):
    rng = np.random.default_rng(8)
    for parts, gain, offset in itertools.product((1, 2, 7, 40), (1.0, 20.0), (0.0, 300.0)):
        outs, lses = rng.standard_normal((parts, 1, 2, 5, 3)), rng.standard_normal((parts, 1, 2, 5)) * gain + offset
        lses = np.where(rng.random(lses.shape) < 0.2, -np.inf, lses)
        for base in ("e", "2"):
            out, lse = worst_ratios(merge_attention_states, {"outs": outs, "lses": lses, "lse_base": base}, form, rng)
            assert max(out, lse) <= 1, (parts, gain, offset, base)


def test_a_weight_that_underflows_keeps_the_error_of_its_logit():
    # exp(-900) is 0 in float64; if the logit may be off by 950, the weight may be anything up to exp(50).
    scores = Bounded(np.array([[0.0, -900.0, -900.0, -np.inf]]), np.array([[0.0, 950.0, 10.0, 0.0]]), CONTRACTS["float32"])
    weights, shift = shifted_exponentials(scores)
    assert weights.error[0, 1] >= np.exp(50.0)
    assert weights.error[0, 2] <= 2 * CONTRACTS["float32"].flush
    assert weights.value[0, 3] == 0 == weights.error[0, 3]
    assert shift == 0
    exponential = np.exp(scores)
    assert exponential.error[0, 1] >= np.exp(50.0)
    assert exponential.error[0, 3] == 0


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_weights_cast_before_the_product_stay_within_the_operand_rounding(storage):
    rng, dtype, worst = np.random.default_rng(9), FORMATS[storage].dtype, 0.0
    for spread, keys, normalise, clusters in itertools.product((1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0), (3, 40, 700), (False, True), (1, 2)):
        cluster = np.arange(keys) % clusters
        scores = np.log(3.0) * cluster + spread * rng.standard_normal((4, keys))
        values = np.stack([rng.standard_normal(keys), np.ones(keys), 1.0 - 4.0 * cluster, np.abs(rng.standard_normal(keys))], axis=1)
        claimed, _ = shifted_exponentials(Bounded(scores, np.zeros(()), CONTRACTS[storage]))
        claimed = as_operand(claimed)
        quotient = np.matmul(claimed, values) / np.sum(claimed, axis=-1, keepdims=True)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        total = weights.sum(-1, keepdims=True)
        cast = ((weights / total if normalise else weights).astype(dtype)).astype(float)
        for denominator in (1.0,) if normalise else (total, cast.sum(-1, keepdims=True)):
            ratio = ratio_of(cast @ values / denominator, quotient)
            worst = max(worst, ratio)
            assert ratio <= 1, (spread, keys, normalise, clusters)
    assert worst > 0.1  # the test bites


def truncated(x):
    return (np.float32(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(float)


def test_operands_cut_off_to_tf32_stay_within_its_contract_whatever_their_low_bits():
    rng, contract = np.random.default_rng(10), CONTRACTS["tf32"]
    just_below = 1 + 2.0**-10 - 2.0**-23  # loses all it can
    for length, signs in itertools.product((1, 5, 64), (False, True)):
        for a, b in (
            (np.full((4, length), just_below), np.full((length, 3), just_below)),
            (rng.standard_normal((4, length)), rng.standard_normal((length, 3))),
        ):
            a = np.float32(a * (rng.choice([-1, 1], a.shape) if signs else 1)).astype(float)
            b = np.float32(b).astype(float)
            claimed = np.matmul(Bounded.exact(a, contract), Bounded.exact(b, contract))
            summed = np.einsum("ij,jk->ik", Bounded.exact(a, contract), Bounded.exact(b, contract))
            assert ratio_of(truncated(a) @ truncated(b), claimed) <= 1
            assert ratio_of(truncated(a) @ truncated(b), summed) <= 1
            assert ratio_of(truncated(np.abs(a)).sum(-1), np.sum(np.absolute(Bounded.exact(a, contract)), axis=-1)) <= 1


@pytest.mark.parametrize("form", STORED)
def test_a_sum_that_may_overflow_on_the_way_is_unbounded(form):
    contract, top = Machine(form).contract, FORMATS[form].largest
    row = Bounded.exact(np.array([[0.6, 0.6, -0.6, -0.6]]) * top, contract)
    ones = Bounded.exact(np.ones((4, 1)), contract)
    for summed in (np.sum(row, axis=1), np.matmul(row, ones), np.einsum("ij,jk->ik", row, ones), np.cumsum(row, axis=1)[:, -1]):
        assert np.all(np.isfinite(summed.value)) and np.all(summed.error == np.inf)
    for beyond in (row * 2.0, row + row, row - (-row), np.exp(row), row / Bounded.exact(np.array([0.1]), contract)):
        assert beyond.error[0, 0] == np.inf
    safe = np.sum(row * 0.25, axis=1)
    assert np.all(safe.error < np.inf)


@pytest.mark.parametrize("form", STORED)
def test_attention_whose_logits_overflow_has_an_infinite_budget(form):
    top = FORMATS[form].largest
    q, k, v = (np.ones((1, 1, 2, 4)) for _ in "qkv")
    (out,) = budget(attention, {"q": q * np.sqrt(top), "k": k * np.sqrt(top), "v": v}, Machine(form).contract)
    assert np.all(expected(out, form).budget == np.inf)


def test_division_by_what_may_be_zero_is_unbounded():
    contract = CONTRACTS["float32"]
    divisor = Bounded(np.array([1.0, 1e-3, 1e-3, 0.0, -2.0, 1e-40]), np.array([0.0, 1e-3, 0.9e-3, 0.0, 2.5, 0.0]), contract)
    quotient = 1.0 / divisor
    assert list(quotient.error == np.inf) == [False, True, False, True, True, True]
    assert np.log(divisor - 1e-3).error[1] == np.inf
    assert (0.0 * divisor / divisor).error[3] == np.inf


def test_an_exact_minus_infinity_stays_exact():
    scores = np.where(np.array([True, False]), Bounded(np.ones(2), np.full(2, 0.1), CONTRACTS["float32"]), -np.inf)
    for result in (scores, scores * 2.0, scores + 1.0, scores / np.log(2.0)):
        assert result.value[1] == -np.inf
        assert result.error[1] == 0
        assert 0 < result.error[0] < 1


def test_an_operation_without_a_rule_is_named():
    array = Bounded(np.ones((2, 2)), np.zeros(()), CONTRACTS["float32"])
    for use, name in (
        (lambda: np.arctan(array), r"numpy\.arctan \(__call__\)"),
        (lambda: np.multiply.reduce(array), r"numpy\.multiply \(reduce\)"),
        (lambda: np.linalg.norm(array), r"numpy\.norm"),
        (lambda: np.median(array), r"numpy\.median"),
        (lambda: array > 0, r"numpy\.greater \(__call__\)"),
    ):
        with pytest.raises(UnboundedOperation, match=f"^{name} has no rule in the budget reading$"):
            use()
    with pytest.raises(UnboundedOperation, match="einsum of more than two operands has no rule"):
        np.einsum("i,i,i->", array[0], array[0], array[0])


def test_a_bounded_array_never_becomes_a_plain_one():
    array = Bounded(np.ones(2), np.zeros(()), CONTRACTS["float32"])
    for use in (
        lambda: np.asarray(array),
        lambda: np.array([array, array]),
        lambda: np.asarray(array, dtype=float),
        lambda: np.zeros(2) @ np.array(array),
    ):
        with pytest.raises(UnboundedOperation, match="its error would be lost"):
            use()


@pytest.mark.parametrize("form", STORED)
def test_the_output_rounding_is_allowed_for_down_to_subnormals_and_up_to_overflow(form):
    shape = FORMATS[form]
    exact = np.concatenate([np.geomspace(shape.smallest_subnormal / 4, shape.largest, 4000) * 0.9999, [0.0]])
    allowed = expected(Bounded(exact, np.zeros(()), CONTRACTS["float32"]), form).budget
    stored = exact.astype(shape.dtype).astype(float)
    assert np.all(np.abs(stored - exact) <= allowed)
    assert allowed[-1] == 0
    ordinary = (exact > shape.smallest_normal / shape.unit_roundoff) & (exact < shape.largest / 2)
    assert np.all(allowed[ordinary] <= 2.1 * shape.unit_roundoff * exact[ordinary])
    beyond = Bounded(np.array([shape.largest, -shape.largest]) * (1 - shape.unit_roundoff / 2), np.zeros(()), CONTRACTS["float32"])
    assert np.all(expected(beyond, form).budget == np.inf)


def test_inputs_that_a_machine_may_flush_are_not_exact():
    tiny = np.array([2.0**-130, 2.0**-126, 0.0, 1.0])
    np.testing.assert_array_equal(Bounded.exact(tiny, CONTRACTS["float32"]).error, [2.0**-130, 0, 0, 0])
    assert not np.any(Bounded.exact(tiny, CONTRACTS["float64"]).error)


def test_the_value_under_the_budget_is_the_value_reading():
    rng = np.random.default_rng(11)
    for _ in range(20):
        case = random_case(rng, 3.0)
        (plain,), (bounded,) = value(attention, case), budget(attention, case, CONTRACTS["bfloat16"])
        np.testing.assert_array_equal(bounded.value, plain)
    assert ml_dtypes.bfloat16 == CONTRACTS["bfloat16"].output.dtype


def test_what_may_not_be_a_number_stays_unbounded_through_every_operation():
    lost = Bounded(np.array([[1.0, 2.0], [0.5, 0.25]]), np.array([[np.inf, 0.0], [0.0, 0.0]]), CONTRACTS["float32"])
    zeros = Bounded(np.zeros((2, 2)), np.zeros(()), CONTRACTS["float32"])
    with np.errstate(invalid="ignore"):
        for result in (
            lost + zeros, lost - zeros, lost * zeros, zeros / lost, zeros * 0.0 * lost, -lost, np.absolute(lost), np.maximum(lost, zeros),
            np.exp(lost), np.log(lost), np.tanh(lost), np.cos(lost), np.sin(lost), np.sqrt(lost),
            np.matmul(lost, zeros), np.cumsum(lost, axis=1), np.sum(lost, axis=1),
            np.einsum("ij,jk->ik", lost, zeros), np.where(np.ones((2, 2), bool), lost, 0.0), np.max(lost, axis=1),
        ):  # fmt: skip
            errors = np.broadcast_to(result.error, result.shape).reshape(2, -1)
            assert errors[0, 0] == np.inf
            assert np.all(errors[1] < np.inf)


@pytest.mark.parametrize("keys", [3, 7, 12, 49])
def test_the_weights_of_a_row_without_keys_that_is_the_mean_may_be_rounded_as_any_others(keys):
    form, rng = FORMATS["bfloat16"], np.random.default_rng(keys)
    q, k, v = (rng.standard_normal((1, 1, size, 4)).astype(form.dtype) for size in (1, keys, keys))
    case = {"q": q, "k": k, "v": v, "mask": np.zeros((1, keys), dtype=bool), "empty_row": "mean"}
    [claimed] = budget(attention, case, CONTRACTS["bfloat16"])
    weight = np.float32(form.dtype.type(1 / keys))  # of every key, after a softmax over equal logits
    made = (weight * v.astype(np.float32)).sum(axis=2, keepdims=True).astype(form.dtype)
    assert ratio_of(made.astype(np.float64), claimed) <= 1
    twice = (np.float32(2) * weight * v.astype(np.float32)).sum(axis=2, keepdims=True).astype(form.dtype)
    assert ratio_of(twice.astype(np.float64), claimed) > 1
