"""How exact the oracle's numbers are, proved: against Arb balls, which contain the exact result with certainty.

Every error is an upper bound on the distance to any point of the ball, relative to what the result sums up: for an output
sum_j p_j |v_j|, for a logsumexp its own magnitude, but at least 1.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from oracle import METHODS, attention_with_lse, merge_attention_states
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import balls, radii, working_precision
from oracle.readings.contract import CONTRACTS

flint = pytest.importorskip("flint")

DENSE = ("attention", "attention_with_lse", "merge_attention_states")
CASES, SEEDS = 50, 16  # a chunk; chunks of each method: 2400 cases in all
TINY = np.finfo(np.float64).tiny  # below it float64 has no relative accuracy
extended = pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="this machine has no extended precision")


def maybe(rng, **options):
    return {name: make() for name, make in options.items() if rng.random() < 0.4}


def draw_attention(rng, name):
    """Arguments with any of the options and conventions, with logits of magnitude 0.1 to 30."""
    (b, g, group), (l, d, e), s = rng.integers(1, 3, 3), rng.integers(1, 5, 3), rng.integers(1, 9)  # noqa: E741
    gain, h, side = rng.choice([0.1, 1, 3, 10, 30]), g * group, [None, 0, 1, 3]
    case = {"q": gain * rng.normal(size=(b, h, l, d)), "k": rng.normal(size=(b, g, s, d)), "v": rng.normal(size=(b, g, s, e))}
    case |= maybe(
        rng,
        mask=lambda: rng.random((l, s)) < 0.7,
        bias=lambda: gain * rng.normal(size=(h, 1, s)),
        causal=lambda: True,
        window=lambda: (side[rng.integers(4)], side[rng.integers(4)]),
        softcap=lambda: float(rng.choice([0.5, 5.0, 50.0])),
        scale=lambda: float(rng.uniform(-1.5, 1.5)),
        sinks=lambda: gain * rng.normal(size=h),
    )
    case |= {name: str(rng.choice(values)) for name, values in METHODS[name].conventions.items()}
    return case


def draw_merge(rng, _):
    """Arguments of a merge in which some parts are empty."""
    n, *shape = (int(size) for size in rng.integers(1, 5, 5))
    lses = rng.choice([0.1, 1, 3, 10, 30]) * rng.normal(size=(n, *shape[:3]))
    lses[rng.random((n, *shape[:3])) < 0.2] = -np.inf
    return {"outs": rng.normal(size=(n, *shape)), "lses": lses, "lse_base": str(rng.choice(["e", "2"]))}


def scales(method, case):
    """What an error of each output is relative to."""
    magnitudes = {name: np.abs(case[name]) for name in ("v", "outs") if name in case}
    out, *lse = value(method, case | magnitudes)
    return [out, *(np.maximum(np.abs(x), 1.0) for x in lse)]


def distance(ball, number):
    """Upper bound on the distance between a number, of float64 or extended precision, and any point of the ball."""
    high = float(number)
    if not np.isfinite(high):
        return 0.0 if str(float(ball)) == str(high) else np.inf
    with working_precision():
        return float((flint.arb(ball) - high - float(number - high)).abs_upper())


distances = np.vectorize(distance, otypes=[np.float64])


@dataclass
class Measured:
    """All finite elements of all outputs of a chunk of cases, as flat arrays."""

    scale: np.ndarray
    radius: np.ndarray  # of the ball
    error: np.ndarray  # of the float64 reading
    allowed: np.ndarray  # the budget of a result in float64
    extended_error: np.ndarray  # of the value under the float64 budget
    bound: np.ndarray  # that budget, before the rounding of the output


def measure(method, case):
    enclosed, bounded = enclosure(method, case), budget(method, case, CONTRACTS["float64"])
    for scale, ball, plain, wide in zip(scales(method, case), enclosed, value(method, case), bounded, strict=True):
        allowed = expected(wide, "float64").budget
        errors, extended_errors = distances(ball, plain), distances(ball, wide.value)
        finite = np.isfinite(plain)
        assert not errors[~finite].any() and not extended_errors[~finite].any()  # a NaN or an infinity is enclosed by itself
        yield [x[finite] for x in (scale, radii(ball), errors, allowed, extended_errors, wide.full_error)]


@pytest.fixture(scope="module", params=list(itertools.product(DENSE, range(SEEDS))), ids=lambda chunk: f"{chunk[0]}-{chunk[1]}")
def measured(request):
    name, seed = request.param
    rng, draw = np.random.default_rng(seed), draw_merge if name == "merge_attention_states" else draw_attention
    parts = [output for _ in range(CASES) for output in measure(METHODS[name], draw(rng, name))]
    return Measured(*(np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True)))


def test_the_float64_reading_is_exact_to_1e_13_of_its_terms(measured):
    assert (measured.error <= 1e-13 * measured.scale + TINY).all()


def test_the_ball_is_so_small_that_it_stands_for_the_exact_result(measured):
    assert (measured.radius <= 1e-40 * measured.scale).all()
    assert (measured.error > 0).any()


def test_the_float64_reading_is_a_correct_float64_implementation(measured):
    assert (measured.error <= measured.allowed).all()


@extended
def test_the_value_under_a_float64_budget_is_far_more_exact_than_float64(measured):
    assert (measured.extended_error <= measured.bound).all()
    assert (measured.extended_error <= 1e-16 * measured.scale + TINY).all()
    relative, extended_relative = (error / (measured.scale + TINY) for error in (measured.error, measured.extended_error))
    assert 100 * extended_relative.max() < relative.max()


def test_a_distance_is_what_it_says_and_nothing_is_near_a_nan():
    one = balls(np.ones(()))[()]
    assert distance(one, 1.0) == 0
    assert distance(one, 1 + 2**-50) == 2**-50
    assert distance(one, np.longdouble(1) + np.finfo(np.longdouble).eps) == np.finfo(np.longdouble).eps
    assert distance(one / 3, 1 / 3) > 1e-17
    for wrong in (np.nan, np.inf, -np.inf):
        assert distance(one, wrong) == np.inf
        assert distance(flint.arb(wrong), wrong) == 0
    assert distance(flint.arb("-inf"), np.inf) == np.inf


def exact(q, k, v, *, scale=None, mask=None, bias=None, softcap=None, sinks=None, lse_base="e"):
    """Attention and logsumexp from its formula, one ball at a time, without a shift; mask (Lq, Lk), bias (Hq, 1, Lk)."""
    arb, (kv_heads, keys) = flint.arb, k.shape[1:3]
    out, lse = np.empty((*q.shape[:3], v.shape[3]), dtype=object), np.empty(q.shape[:3], dtype=object)
    factor = 1 / arb(q.shape[3]).sqrt() if scale is None else arb(scale)
    for b, h, i in np.ndindex(q.shape[:3]):
        g, weights = h * kv_heads // q.shape[1], {}
        for j in (j for j in range(keys) if mask is None or mask[i, j]):
            logit = factor * sum(arb(x) * arb(y) for x, y in zip(q[b, h, i], k[b, g, j], strict=True))
            logit = logit if softcap is None else softcap * (logit / softcap).tanh()
            weights[j] = (logit if bias is None else logit + bias[h, 0, j]).exp()
        total = sum(weights.values(), arb(0) if sinks is None else arb(sinks[h]).exp())
        lse[b, h, i] = total.log() / (arb(2).log() if lse_base == "2" else 1)
        for x in range(v.shape[3]):
            out[b, h, i, x] = sum(weight * arb(v[b, g, j, x]) for j, weight in weights.items()) / total
    return out, lse


def contains_the_exact_result(case):
    outputs = enclosure(attention_with_lse, case)
    with flint.ctx.workprec(600):
        pairs = [pair for wide, fine in zip(outputs, exact(**case), strict=True) for pair in zip(wide.ravel(), fine.ravel(), strict=True)]
        return all(ball.contains(point) for ball, point in pairs)


def plain_case(rng, width=3, keys=5):
    case = {"q": 10 * rng.normal(size=(1, 4, 2, width)), "k": rng.normal(size=(1, 2, keys, width)), "v": rng.normal(size=(1, 2, keys, 2))}
    bias, mask = 5 * rng.normal(size=(4, 1, keys)), rng.random((2, keys)) < 0.8
    mask[:, 0] = True
    return case | maybe(rng, mask=lambda: mask, bias=lambda: bias, softcap=lambda: 7.3, sinks=lambda: rng.normal(size=4))


@pytest.mark.parametrize("seed", range(20))
def test_the_ball_contains_the_result_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    assert contains_the_exact_result(plain_case(rng) | {"scale": 0.3})
    assert contains_the_exact_result(plain_case(rng, width=4))


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, id="scale 1/sqrt(3)"), pytest.param({"scale": 0.3, "lse_base": "2"}, id="ln 2")],
)
def test_the_ball_contains_the_result_whatever_its_constants(changes):
    assert contains_the_exact_result(plain_case(np.random.default_rng(0)) | changes)


@pytest.mark.parametrize("seed", range(10))
def test_in_exact_arithmetic_merging_parts_of_the_keys_is_attention_over_all(seed):
    rng = np.random.default_rng(seed)
    case = plain_case(rng, keys=6) | {"scale": 0.3, "mask": np.ones((2, 6), bool)}
    case.pop("sinks", None)
    cut = int(rng.integers(1, 6))
    parts = []
    for part in (slice(0, cut), slice(cut, 6)):
        own = {"k": case["k"][:, :, part], "v": case["v"][:, :, part], "mask": case["mask"][:, part]}
        own |= {"bias": case["bias"][..., part]} if "bias" in case else {}
        parts.append(enclosure(attention_with_lse, case | own))
    with working_precision():
        merged = merge_attention_states.spec(*(np.stack(states) for states in zip(*parts, strict=True)))
    for got, whole in zip(merged, enclosure(attention_with_lse, case), strict=True):
        assert all(one.overlaps(other) for one, other in zip(got.ravel(), whole.ravel(), strict=True))


@pytest.mark.parametrize("empty_row", ["zeros", "nan", "mean"])
@pytest.mark.parametrize("keys", [0, 4])
def test_a_row_without_keys_is_enclosed_like_any_other(keys, empty_row):
    case = plain_case(np.random.default_rng(1), width=4, keys=max(keys, 1))
    case = {name: case[name][:, :, :keys] if name in "kv" else case[name] for name in "qkv"}
    case |= {"mask": np.arange(2)[:, None] > np.zeros((2, keys)), "empty_row": empty_row}
    for got, want in zip(enclosure(attention_with_lse, case), value(attention_with_lse, case), strict=True):
        assert (distances(got, want) <= 1e-13).all()


def test_a_merge_of_empty_parts_is_enclosed_like_any_other():
    case = {"outs": np.ones((2, 1, 1, 3, 1)), "lses": np.array([[0.0, -np.inf, 1.0], [1.0, -np.inf, -np.inf]]).reshape(2, 1, 1, 3)}
    for got, want in zip(enclosure(merge_attention_states, case), value(merge_attention_states, case), strict=True):
        assert (distances(got, want) <= 1e-13).all()
