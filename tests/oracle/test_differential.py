"""Differential attention: its meaning, its enclosure, and budgets that do not shrink with the difference."""

import ml_dtypes
import numpy as np
import pytest

from oracle import METHODS, OptionError, ShapeError, attention
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

METHOD = METHODS["differential_attention"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def draw(seed, *, queries=5, keys=9, heads=4, kv_heads=2, gain=1.0, **options):
    rng = np.random.default_rng(seed)
    q1, q2 = gain * rng.standard_normal((2, 2, heads, queries, 8))
    k1, k2 = rng.standard_normal((2, 2, kv_heads, keys, 8))
    return {"q1": q1, "k1": k1, "q2": q2, "k2": k2, "v": rng.standard_normal((2, kv_heads, keys, 6)), **options}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (9, 5), (1, 7), (4, 0)])
def test_it_is_one_attention_less_a_part_of_another(queries, keys, causal):
    given = draw(0, queries=queries, keys=keys, lam=0.7, causal=causal, scale=0.3)
    v2 = draw(1, queries=queries, keys=keys)["v"]
    first = attention(given["q1"], given["k1"], given["v"], causal=causal, scale=0.3)
    for values, arguments in ((given["v"], given), (v2, {**given, "v2": v2})):
        second = attention(given["q2"], given["k2"], values, causal=causal, scale=0.3)
        np.testing.assert_allclose(METHOD(**arguments), first - 0.7 * second, atol=1e-14)


def test_a_normalised_head_has_a_root_mean_square_of_one_less_lam_init():
    out = METHOD(**draw(2, lam=0.5, lam_init=0.8, eps=1e-30))
    np.testing.assert_allclose(np.sqrt(np.mean(out**2, axis=-1)), 0.2, rtol=1e-12)


def test_eps_is_added_under_the_root():
    plain, given = METHOD(**draw(3, lam=0.5)), draw(3, lam=0.5, lam_init=0.25, eps=0.5)
    np.testing.assert_allclose(METHOD(**given), 0.75 * plain / np.sqrt(np.mean(plain**2, axis=-1, keepdims=True) + 0.5), rtol=1e-12)


@pytest.mark.parametrize("lam_init", [None, 0.8])
@pytest.mark.parametrize("seed", range(10))
def test_the_value_lies_in_its_enclosure_to_one_part_in_1e13_of_its_terms(seed, lam_init):
    given = draw(seed, lam=0.9, causal=True, lam_init=lam_init, gain=3.0)
    (got,), (exact,) = value(METHOD, given), enclosure(METHOD, given)
    # A norm divides by what the two maps leave of each other.
    left = METHOD(**{**given, "lam_init": None})
    norm = 1.0 if lam_init is None else 1 / np.sqrt(np.mean(left**2, axis=-1, keepdims=True) + 1e-5)
    assert (np.abs(got - midpoints(exact)) + radii(exact) <= 1e-13 * np.abs(given["v"]).max() * np.maximum(norm, 1) ** 2 * 10).all()


def test_what_maps_that_are_alike_leave_is_not_known_to_its_own_precision():
    given = draw(4, lam=0.999)
    alike = {**given, "q2": given["q1"], "k2": given["k1"]}
    first = np.abs(attention(given["q1"], given["k1"], given["v"])).max()
    for name, contract in CONTRACTS.items():
        (bound,) = budget(METHOD, alike, contract)
        assert bound.full_error.max() > contract.unit_roundoff * first / 4, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lam_init", [None, 0.8])
@pytest.mark.parametrize("gain", [0.01, 1.0, 10.0])
def test_kernels_that_round_stay_within_the_budget(dtype, lam_init, gain):
    cast = DTYPES[dtype]
    for seed in range(8):
        given = draw(seed, queries=9, lam=0.999, causal=seed % 2 == 1, lam_init=lam_init, gain=gain)
        given = {name: x.astype(cast) if isinstance(x, np.ndarray) else x for name, x in given.items()}
        for kernel in (rounding_at_every_step, rounding_at_the_end):
            got, want = kernel(**given), expected(budget(METHOD, given, CONTRACTS[dtype])[0], dtype)
            assert (np.abs(got.astype(np.float64) - want.value) <= want.budget).all()


def test_a_lambda_that_is_off_by_one_in_a_thousand_leaves_the_budget():
    for lam_init in (None, 0.8):
        drawn = draw(5, lam=0.8, causal=False, lam_init=lam_init)
        given = {name: np.float32(x) if isinstance(x, np.ndarray) else x for name, x in drawn.items()}
        want = expected(budget(METHOD, given, CONTRACTS["float32"])[0], "float32")
        got = rounding_at_the_end(**{**given, "lam": 0.8008})
        assert (np.abs(got - want.value) > want.budget).any()


def maps(given, cast):
    batch, heads, queries, width = given["q1"].shape
    keys, group = given["k1"].shape[2], heads // given["k1"].shape[1]
    hidden = np.arange(keys) > np.arange(queries)[:, None] + keys - queries
    for q, k in ((given["q1"], given["k1"]), (given["q2"], given["k2"])):
        logits = q.astype(np.float32) @ np.repeat(k, group, axis=1).astype(np.float32).swapaxes(2, 3) * np.float32(width**-0.5)
        logits = np.where(hidden & given["causal"], -np.inf, logits)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights = (weights / weights.sum(axis=-1, keepdims=True)).astype(cast).astype(np.float32)
        yield weights @ np.repeat(given["v"], group, axis=1).astype(np.float32)


def rounding_at_every_step(**given):
    """As a model written in 16-bit tensors."""
    cast = given["q1"].dtype
    first, second = (x.astype(cast) for x in maps(given, cast))
    out = first - (second * np.float32(given["lam"]).astype(np.float32)).astype(cast)
    if given["lam_init"] is None:
        return out
    wide = out.astype(np.float32)
    wide = (wide / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + np.float32(1e-5))).astype(cast).astype(np.float32)
    return (wide * np.float32(1 - given["lam_init"])).astype(cast)


def rounding_at_the_end(**given):
    first, second = maps(given, np.float32)
    out = first - np.float32(given["lam"]) * second
    if given["lam_init"] is not None:
        out = out / np.sqrt(np.mean(out * out, axis=-1, keepdims=True) + np.float32(1e-5)) * np.float32(1 - given["lam_init"])
    return out.astype(given["q1"].dtype)


def test_arguments_that_do_not_fit_are_named():
    given = draw(6)
    with pytest.raises(OptionError, match="lam is missing, but should be a finite number"):
        METHOD(**given)
    with pytest.raises(ShapeError, match=r"k2.shape\[2\]=8, but should be s=9 as in k1"):
        METHOD(**{**given, "k2": given["k2"][:, :, :8], "lam": 0.5})
    with pytest.raises(ShapeError, match="query heads must be a multiple"):
        METHOD(**{**draw(6, heads=3), "lam": 0.5})
