"""Linear, scalar-gated, Performer, Linformer and Chebyshev attention: their meaning, their enclosures and their errors."""

import flint
import numpy as np
import pytest
from linear_cases import DOMAINS, MAPS, Floats, by_terms, draw
from numpy.polynomial import chebyshev

from oracle import METHODS, OptionError, ShapeError
from oracle.polynomial import interpolated_exponential
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii, working_precision
from oracle.readings.contract import CONTRACTS

NAMES = ("linear_attention", "scalar_gated_linear_attention", "performer_attention", "linformer_attention", "chebyshev_attention")
TINY = np.finfo(np.float64).tiny


class Balls(Floats):
    exp, sqrt, cos = staticmethod(lambda x: x.exp()), staticmethod(lambda x: x.sqrt()), staticmethod(lambda x: x.cos())
    number = staticmethod(lambda x: flint.arb(float(x)))


def distances(balls, numbers):
    """Upper bounds on how far numbers are from any point of the balls."""
    with working_precision():
        return np.vectorize(lambda ball, x: float((ball - float(x)).abs_upper()), otypes=[float])(balls, numbers)


def conditioned(name, case):
    """Whether the weights do not cancel so far that no 64 bits are enough."""
    _, size = by_terms(name, case)
    return np.all(size.astype(float) < 1e3 * np.abs(case["v"]).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(40))
def test_the_value_is_that_of_the_formula(name, seed):
    case = draw(np.random.default_rng(seed), name)
    want, size = by_terms(name, case)
    (got,) = value(METHODS[name], case)
    assert np.all(np.abs(got - want.astype(float)) <= 1e-11 * (1 + case.get("degree", 0) ** 2) * size.astype(float) + 1e-300)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(12))
def test_the_ball_contains_the_result_of_the_formula(name, seed):
    case = draw(np.random.default_rng(100 + seed), name, length=3)
    (got,) = enclosure(METHODS[name], case)
    with flint.ctx.workprec(400):
        ops = type("Wide", (Balls,), {"pi": flint.arb.pi()})
        want, _ = by_terms(name, case, ops)
        assert all(ball.overlaps(exact) for ball, exact in zip(got.ravel(), want.ravel(), strict=True))
    assert np.all(radii(got) <= 1e-30 * np.maximum(np.abs(midpoints(got)), 1e-20))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(40))
def test_the_float64_reading_is_exact_to_1e_12_of_its_terms_and_keeps_its_own_budget(name, seed):
    case = next(
        case for case in (draw(np.random.default_rng(200 + 100 * seed + again), name) for again in range(99)) if conditioned(name, case)
    )
    (exact,), (plain,), (bounded,) = (
        enclosure(METHODS[name], case),
        value(METHODS[name], case),
        budget(METHODS[name], case, CONTRACTS["float64"]),
    )
    _, size = by_terms(name, case)
    error = distances(exact, plain)
    # The weights of a polynomial are exact next to its largest, not each next to itself.
    terms = size.astype(float) if name != "chebyshev_attention" else 1e3 * np.abs(case["v"]).max()
    assert np.all(error <= 1e-12 * terms + TINY)
    assert np.all(error <= expected(bounded, "float64").budget)
    assert np.all(distances(exact, bounded.value.astype(np.float64)) <= 1e-12 * terms + TINY)


@pytest.mark.parametrize("degree", [0, 1, 2, 5, 12])
@pytest.mark.parametrize("domain", DOMAINS)
def test_the_polynomial_is_numpys_interpolant_and_agrees_with_exp_at_its_points(degree, domain):
    low, high = domain
    x = np.linspace(low, high, 50)
    t = (2 * x - low - high) / (high - low)
    want = chebyshev.chebval(t, chebyshev.chebinterpolate(lambda t: np.exp((low + high) / 2 + (high - low) / 2 * t), degree))
    np.testing.assert_allclose(interpolated_exponential(x, degree, domain), want, rtol=1e-12, atol=1e-12 * np.exp(high))
    if degree:
        points = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * np.arange(degree + 1) / degree)
        got = interpolated_exponential(points, degree, domain, "extrema")
        np.testing.assert_allclose(got, np.exp(points), rtol=1e-12, atol=1e-13 * np.exp(high))


def test_logits_beyond_the_domain_count_as_its_end():
    inside, outside = (
        interpolated_exponential(np.array([-1.0, 2.0]), 4, (-1.0, 2.0)),
        interpolated_exponential(np.array([-9.0, 40.0]), 4, (-1.0, 2.0)),
    )
    np.testing.assert_array_equal(inside, outside)


def plain(name):
    return draw(np.random.default_rng(0), name)


@pytest.mark.parametrize("feature_map", ["identity", "tanh", "", "elu"])
@pytest.mark.parametrize("name", NAMES[:2])
def test_maps_that_may_be_negative_are_refused(name, feature_map):
    with pytest.raises(OptionError, match=r"feature_map='\w*', but should be one of elu\+1, relu\+1, relu, exp"):
        METHODS[name](**plain(name) | {"feature_map": feature_map})


@pytest.mark.parametrize(
    ("name", "changes", "error", "words"),
    [
        ("linear_attention", {"eps": -1.0}, OptionError, "eps=-1.0, but should be a number >= 0"),
        ("linear_attention", {"causal": 1}, OptionError, "causal=1, but should be True or False"),
        ("linear_attention", {"k": np.zeros((1, 1, 99, 1))}, ShapeError, "k.shape"),
        ("performer_attention", {"projection": np.zeros((0, 4))}, ShapeError, "m > 0|projection.shape"),
        ("linformer_attention", {"e": np.zeros((2, 99))}, ShapeError, "shape"),
        ("chebyshev_attention", {"degree": -1}, OptionError, "degree=-1, but should be an integer >= 0"),
        ("chebyshev_attention", {"degree": 2.5}, OptionError, "degree=2.5, but should be an integer >= 0"),
        ("chebyshev_attention", {"domain": (1.0, 1.0)}, OptionError, "domain=.*, but should be a pair"),
    ],
)
def test_what_does_not_fit_is_refused(name, changes, error, words):
    with pytest.raises(error, match=words):
        METHODS[name](**plain(name) | changes)


@pytest.mark.parametrize("missing", ["degree", "domain"])
def test_a_chebyshev_attention_needs_degree_and_domain(missing):
    case = plain("chebyshev_attention")
    del case[missing]
    with pytest.raises(OptionError, match=f"{missing} is missing"):
        METHODS["chebyshev_attention"](**case)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_computed_of_nothing(name):
    for axis in (0, 2):
        case = plain(name)
        case |= {array: np.take(case[array], [], axis=axis) for array in "qkv"}
        if axis == 2 and "e" in case:
            case |= {"e": case["e"][:, :0], "f": case["f"][:, :0]}
        assert METHODS[name](**case).size == 0
    if name in NAMES[3:]:
        case |= {"q": plain(name)["q"]}
        for outputs in (METHODS[name](**case), budget(METHODS[name], case, CONTRACTS["float32"])[0].value):
            assert outputs.shape == (*case["q"].shape[:3], case["v"].shape[3])
            assert np.all(outputs == 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("contract", ["float32", "tf32", "float16", "bfloat16", "bfloat16-full"])
def test_the_value_under_the_budget_is_the_value_reading(name, contract):
    for seed in range(8):
        case = draw(np.random.default_rng(seed), name)
        (plain_value,), (bounded,) = value(METHODS[name], case), budget(METHODS[name], case, CONTRACTS[contract])
        np.testing.assert_allclose(bounded.value, plain_value, rtol=1e-10, atol=1e-10)


def test_the_eps_of_a_performer_may_weigh_what_stabilisers_make_of_it():
    rng = np.random.default_rng(5)
    case = draw(rng, "performer_attention", gain=1.0, length=6) | {"eps": 1e-2, "causal": False}
    wanted = expected(budget(METHODS["performer_attention"], case, CONTRACTS["float64"])[0], "float64")
    q, k = (case[name] / case["q"].shape[-1] ** 0.25 for name in "qk")
    logs = [x @ case["projection"].T - (x * x).sum(-1, keepdims=True) / 2 for x in (q, k)]
    for of_queries, of_keys in ((0.0, 0.0), (logs[0].max(-1, keepdims=True), logs[1].max((-2, -1), keepdims=True))):
        phi_q, phi_k = np.exp(logs[0] - of_queries), np.exp(logs[1] - of_keys)
        weights = phi_q @ np.swapaxes(phi_k, -1, -2) / len(case["projection"])
        out = weights @ case["v"] / (weights.sum(-1, keepdims=True) + 1e-2)
        assert np.all(np.abs(out - wanted.value) <= wanted.budget)


def test_the_eps_of_a_performer_counts_where_nothing_can_be_taken_out():
    case = draw(np.random.default_rng(5), "performer_attention", gain=0.0, length=2) | {"eps": 1.0, "causal": False}
    case["k"] = 0 * case["k"]
    wanted = expected(budget(METHODS["performer_attention"], case, CONTRACTS["float32"])[0], "float32")
    np.testing.assert_allclose(wanted.value, np.broadcast_to(case["v"].sum(axis=2, keepdims=True) / 3, case["v"].shape), rtol=1e-12)
    assert np.all(wanted.budget < 1e-5)


@pytest.mark.parametrize("feature_map", MAPS)
def test_a_causal_prefix_does_not_depend_on_what_follows(feature_map):
    rng = np.random.default_rng(3)
    case = draw(rng, "linear_attention", length=6) | {"causal": True, "feature_map": feature_map}
    changed = {name: np.concatenate([case[name][:, :, :3], rng.normal(size=case[name][:, :, 3:].shape)], axis=2) for name in "qkv"}
    first, second = (METHODS["linear_attention"](**made)[:, :, :3] for made in (case, case | changed))
    np.testing.assert_allclose(first, second, rtol=1e-13)
