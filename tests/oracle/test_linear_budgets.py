"""The budgets of linear and kernel attention hold for right ways of computing it, and for no wrong precision."""

import itertools
from functools import partial

import linear_kernels as kernels
import ml_dtypes
import numpy as np
import pytest
from linear_cases import draw
from test_bounded_attention import worst_ratios

from oracle import METHODS
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

NAMES = ("linear_attention", "scalar_gated_linear_attention", "performer_attention", "linformer_attention", "chebyshev_attention")
STORAGE = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
MAPS = ("elu+1", "relu+1", "relu", "exp")
KERNELS = {
    "parallel": kernels.parallel,
    "normalised before": partial(kernels.parallel, normalise="before"),
    "reciprocal": partial(kernels.parallel, reciprocal=True),
    "recurrent": kernels.recurrent,
    "backwards": partial(kernels.recurrent, backwards=True, reciprocal=True),
    "chunks of 16": kernels.chunked,
    "chunks of 64": partial(kernels.chunked, chunk=64, reciprocal=True),
    "chunks of 1": partial(kernels.chunked, chunk=1),
}
SHAPES = ((1, 1, 1, 1e-6), (5, 4, 3, 1e-3), (33, 16, 8, 1e-6), (200, 1, 4, 0.0), (130, 64, 8, 1e-6))  # L, D, Dv, eps


def inputs(kind, length, width, values, rng):
    q, k, v = rng.normal(size=(length, width)), rng.normal(size=(length, width)), rng.normal(size=(length, values))
    profile = np.zeros((length, 1))
    if kind == "large":
        q, k = q * 10, k * 3
    elif kind == "equal keys":
        k, v = np.broadcast_to(k[:1], k.shape), np.broadcast_to(v[:1], v.shape)
    elif kind == "tiny features":  # a sum of weights that is close to eps, or far below it
        k = k * 0.25 - 18
    elif kind == "offset":
        k, v = k * 0.25 + 6, np.abs(v)
    elif kind == "first key":
        profile[0] = 16
        k, v = k * 0.5 + profile, np.abs(v)
    elif kind == "one feature":  # of one key, that swallows the others in its state but not in the weights
        k = k * 0.3
        k[0, 0], v, q = 16, np.abs(v), q * 0.1
    elif kind == "many magnitudes":
        q, k = (x * 10.0 ** rng.uniform(-4, 1, x.shape) for x in (q, k))
    elif kind == "rising":
        k, v = k * 0.5 + np.sort(rng.uniform(0, 8, length))[:, None], np.abs(v)
    return q, k, v


KINDS = ("normal", "large", "equal keys", "tiny features", "offset", "first key", "one feature", "many magnitudes", "rising")


def ratio(got, wanted):
    """Largest error over budget; no number, where one is wanted, is infinitely far off."""
    error = np.where(np.isfinite(got), np.abs(got - wanted.value), np.inf)
    with np.errstate(all="ignore"):
        own = np.where(error == 0, 0.0, error / wanted.budget)
    return float(np.where(wanted.budget == np.inf, 0.0, own).max(initial=0.0))


def judged(storage, arrays, **options):
    with np.errstate(all="ignore"):
        arguments = {name: x[None, None] for name, x in zip("qkv", arrays, strict=True)} | options
        made = expected(budget(METHODS["linear_attention"], arguments, CONTRACTS[storage])[0], storage)
    return type(made)(made.value[0, 0], made.budget[0, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("storage", STORAGE)
def test_every_right_way_of_computing_linear_attention_stays_within_the_budget(storage, kind):
    rng, worst = np.random.default_rng(KINDS.index(kind)), {}
    for name, causal, (length, width, values, eps) in itertools.product(MAPS, (False, True), SHAPES):
        q, k, v = (x.astype(STORAGE[storage]).astype(np.float32) for x in inputs(kind, length, width, values, rng))
        wanted = judged(storage, (q, k, v), feature_map=name, causal=causal, eps=eps)
        for (label, kernel), cast in itertools.product(KERNELS.items(), {None, STORAGE[storage]} if storage != "float32" else {None}):
            with np.errstate(all="ignore"):
                got = kernel(kernels.features(q, name), kernels.features(k, name), v, causal=causal, eps=eps, cast=cast)
                worst[label, name, causal, length, cast] = ratio(got.astype(STORAGE[storage]).astype(float), wanted)
    assert max(worst.values()) <= 1, max(worst, key=worst.get)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["normal", "equal keys", "first key", "one feature", "rising"])
def test_sums_over_thousands_of_keys_stay_within_the_budget(kind, causal):
    rng, worst = np.random.default_rng(7), {}
    for name in MAPS:
        q, k, v = (x.astype(np.float32) for x in inputs(kind, 2000, 4, 2, rng))
        wanted = judged("float32", (q, k, v), feature_map=name, causal=causal, eps=1e-6)
        for label in ("parallel", "recurrent", "chunks of 64"):
            got = KERNELS[label](kernels.features(q, name), kernels.features(k, name), v, causal=causal, eps=1e-6)
            worst[label, name] = ratio(got, wanted)
    assert max(worst.values()) <= 1, worst


@pytest.mark.parametrize(("storage", "least"), [("float32", 0.05), ("bfloat16", 0.1), ("float16", 0.1)])
def test_right_kernels_use_a_good_part_of_an_ordinary_budget(storage, least):
    rng = np.random.default_rng(1)
    for name in MAPS:
        q, k, v = (x.astype(STORAGE[storage]).astype(np.float32) for x in inputs("normal", 33, 16, 8, rng))
        wanted = judged(storage, (q, k, v), feature_map=name, eps=1e-6)
        cast = None if storage == "float32" else STORAGE[storage]
        made = [
            kernel(kernels.features(q, name), kernels.features(k, name), v, causal=False, eps=1e-6, cast=cast)
            for kernel in KERNELS.values()
        ]
        assert max(ratio(got.astype(STORAGE[storage]).astype(float), wanted) for got in made) > least * 0.2, name
        assert np.mean(np.abs(wanted.value) > wanted.budget) > 0.8


def test_less_than_float32_leaves_the_float32_budget():
    rng = np.random.default_rng(2)
    for name, causal in itertools.product(MAPS, (False, True)):
        q, k, v = (x.astype(np.float32) for x in inputs("normal", 65, 16, 8, rng))
        wanted = judged("float32", (q, k, v), feature_map=name, causal=causal, eps=1e-6)
        got = kernels.chunked(kernels.features(q, name), kernels.features(k, name), v, causal=causal, eps=1e-6, cast=ml_dtypes.bfloat16)
        assert ratio(got, wanted) > 20


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_elu_plus_one_that_cancels_leaves_the_budget(storage):
    rng = np.random.default_rng(3)
    q, k, v = (x.astype(STORAGE[storage]).astype(np.float32) for x in inputs("tiny features", 40, 8, 4, rng))
    wanted = judged(storage, (q, k, v), eps=1e-6)
    elu = np.where(k > 0, k, np.expm1(np.minimum(k, 0))) + np.float32(1)
    assert ratio(kernels.parallel(kernels.features(q, "elu+1"), kernels.features(k, "elu+1"), v, causal=False, eps=1e-6), wanted) <= 1
    assert ratio(kernels.parallel(kernels.features(q, "elu+1"), elu, v, causal=False, eps=1e-6), wanted) > 5


@pytest.mark.parametrize("form", STORAGE)
@pytest.mark.parametrize("name", NAMES)
def test_the_budget_holds_on_a_rounding_machine(name, form):
    for seed, gain in itertools.product(range(12), (0.1, 1.0, 4.0)):
        rng = np.random.default_rng(seed)
        case = draw(rng, name, gain=gain, length=None if seed % 3 else 24)
        with np.errstate(all="ignore"):
            (worst,) = worst_ratios(METHODS[name], case, form, rng)
        assert worst <= 1, (seed, gain, {key: x for key, x in case.items() if not isinstance(x, np.ndarray)})


def polynomial(how, coefficients, t):
    """sum_k c_k T_k(t) in float32: by Clenshaw's recurrence, the forward one, cosines, powers of t, or Lagrange's barycentric formula."""
    c, t = np.asarray(coefficients, np.float32), np.asarray(t, np.float32)
    order = np.arange(len(c))
    if how == "cosines":
        return (c * np.cos(order.astype(np.float32) * np.arccos(t)[..., None])).sum(-1)
    if how == "powers":
        powers = np.polynomial.chebyshev.cheb2poly(coefficients).astype(np.float32)
        total = np.zeros_like(t)
        for power in powers[::-1]:
            total = total * t + power
        return total
    if how == "points":
        nodes = np.cos(np.pi * (2 * order + 1) / (2 * len(c)))
        values = np.polynomial.chebyshev.chebval(nodes, coefficients).astype(np.float32)
        weights = ((-1.0) ** order * np.sin(np.pi * (2 * order + 1) / (2 * len(c)))).astype(np.float32)
        with np.errstate(all="ignore"):
            terms = weights / (t[..., None] - nodes.astype(np.float32))
            made = (terms * values).sum(-1) / terms.sum(-1)
        return np.where(np.isfinite(made), made, values[np.abs(t[..., None] - nodes).argmin(-1)])
    after, latest = np.zeros_like(t), np.zeros_like(t)
    if how == "clenshaw":
        for one in c[:0:-1]:
            after, latest = latest, one + 2 * t * latest - after
        return c[0] + t * latest - after
    before, latest, total = np.ones_like(t), t, np.full_like(t, c[0])
    for one in c[1:]:
        total = total + one * latest
        before, latest = latest, 2 * t * latest - before
    return total


@pytest.mark.parametrize("how", ["clenshaw", "forward", "cosines", "powers", "points"])
@pytest.mark.parametrize("domain", [(-1.0, 1.0), (-4.0, 4.0), (-10.0, 0.0), (-3.0, 1.0)])
def test_every_right_way_of_evaluating_the_polynomial_stays_within_the_budget(how, domain):
    rng, (low, high) = np.random.default_rng(4), domain
    for degree in (0, 1, 2, 3, 5, 8, 12) if how == "powers" else (0, 1, 2, 3, 5, 8, 12, 24, 60):
        q, k, v = rng.normal(size=(16, 8)), rng.normal(size=(40, 8)), rng.normal(size=(40, 4))
        q, k, v = (x.astype(np.float32) for x in (q * 3, k, v))
        arguments = {name: x[None, None] for name, x in zip("qkv", (q, k, v), strict=True)}
        made = expected(
            budget(METHODS["chebyshev_attention"], arguments | {"degree": degree, "domain": domain}, CONTRACTS["float32"])[0], "float32"
        )
        coefficients = np.polynomial.chebyshev.chebinterpolate(lambda t: np.exp((low + high) / 2 + (high - low) / 2 * t), degree)
        t = ((2 * np.clip(q @ k.T * np.float32(8**-0.5), low, high) - (low + high)) / np.float32(high - low)).clip(-1, 1)
        weights = polynomial(how, coefficients, t)
        got = weights @ v / weights.sum(-1, keepdims=True)
        assert ratio(got, type(made)(made.value[0, 0], made.budget[0, 0])) <= 1, degree
        if 0 < degree < 6:
            less = polynomial(how, coefficients[:-1], t)
            assert ratio(less @ v / less.sum(-1, keepdims=True), type(made)(made.value[0, 0], made.budget[0, 0])) > 10, degree
