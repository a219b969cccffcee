"""The delta rules: the meaning as a product of operators, enclosures, and budgets against recurrent and chunked kernels."""

import numpy as np
import pytest

from oracle import METHODS, OptionError
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

DELTA, GATED = METHODS["delta_rule"], METHODS["gated_delta_rule"]
BOTH = pytest.mark.parametrize("method", [DELTA, GATED], ids=lambda method: method.name)
STRENGTHS = (0.0, 0.01, 1.0, 30.0, 1000.0)


def arguments(method, seed, length=9, strength=1.0, dtype=np.float64, width=4):
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, 2, 3, length, width))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    given = {"q": q, "k": k, "v": rng.normal(size=(2, 3, length, 5)), "beta": rng.random((2, 3, length))}
    if method is GATED:
        given["g"] = -strength * rng.random((2, 3, length))
    given["initial_state"] = rng.normal(size=(2, 3, width, 5))
    return {name: array.astype(dtype) for name, array in given.items()}


def by_operators(q, k, v, beta, initial_state, g=None, scale=1.0):
    """Every state from the definition, S_t = alpha (I - beta k k^T) S_{t-1} + beta k v^T, with matrices written out."""
    out, last = np.zeros((*q.shape[:3], v.shape[3])), np.zeros_like(initial_state)
    for b, h in np.ndindex(q.shape[:2]):
        state = initial_state[b, h]
        for t in range(q.shape[2]):
            key, part = k[b, h, t], beta[b, h, t]
            operator = np.eye(len(key)) - part * np.outer(key, key)
            state = (1.0 if g is None else np.exp(g[b, h, t])) * operator @ state + part * np.outer(key, v[b, h, t])
            out[b, h, t] = scale * q[b, h, t] @ state
        last[b, h] = state
    return out, last


@BOTH
@pytest.mark.parametrize("strength", STRENGTHS)
def test_it_is_the_product_of_its_operators(method, strength):
    given = arguments(method, 1, strength=strength)
    for got, want in zip(method(**given, scale=0.7), by_operators(**given, scale=0.7), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@BOTH
def test_a_sequence_may_be_cut_anywhere_and_its_state_handed_on(method):
    given = arguments(method, 2, length=11)
    whole, state = method(**given)
    tokens = [name for name in given if name != "initial_state"]
    for cut in (0, 1, 5, 11):
        before, handed = method(**{name: given[name][:, :, :cut] for name in tokens}, initial_state=given["initial_state"])
        after, last = method(**{name: given[name][:, :, cut:] for name in tokens}, initial_state=handed)
        np.testing.assert_allclose(np.concatenate([before, after], axis=2), whole, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(last, state, rtol=1e-12, atol=1e-14)


def test_without_decay_the_gated_rule_is_the_plain_one():
    given = arguments(DELTA, 3)
    for got, want in zip(GATED(**given, g=np.zeros((2, 3, 9))), DELTA(**given), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_key_that_comes_again_gets_its_new_value():
    key = np.zeros((1, 1, 2, 3))
    key[..., 1] = 1.0
    v = np.array([[1.0, 2.0], [5.0, -7.0]])[None, None]
    out, state = DELTA(key, key, v, np.ones((1, 1, 2)), scale=1.0)
    np.testing.assert_array_equal(out, v)
    np.testing.assert_array_equal(state[0, 0], [[0, 0], [5, -7], [0, 0]])


def test_a_gate_of_minus_infinity_forgets_everything():
    given = arguments(GATED, 4)
    given["g"][:, :, 5] = -np.inf
    whole, state = GATED(**given)
    tail = {name: array[:, :, 5:] for name, array in given.items() if name != "initial_state"}
    out, last = GATED(**tail)
    np.testing.assert_allclose(whole[:, :, 5:], out, rtol=1e-12)
    np.testing.assert_allclose(state, last, rtol=1e-12)
    for bound in budget(GATED, given, CONTRACTS["float32"]):
        assert np.isfinite(bound.full_error).all()


@BOTH
@pytest.mark.parametrize("length", [9, 60])
def test_the_value_lies_in_its_enclosure_to_one_part_in_1e12_of_its_terms(method, length):
    """With keys of length 1 nothing grows, so the state's own size is that of the terms it is made of."""
    given = arguments(method, 5, length=length)
    for got, exact in zip(value(method, given), enclosure(method, given), strict=True):
        assert (np.abs(got - midpoints(exact)) + radii(exact) <= 1e-12 * np.abs(got).max()).all()


@BOTH
def test_long_keys_are_told_to_be_unknowable(method):
    """Keys of length 4 and beta 1 multiply errors by 15 a token: float64 loses its digits too, and the budget says so.

    The condition number of the product of operators is what is lost; Arb's 200 bits still know the value.
    """
    given = arguments(method, 6, length=30, strength=0.0)
    given |= {"k": 4 * given["k"], "beta": np.ones((2, 3, 30))}
    for got, exact, bound in zip(value(method, given), enclosure(method, given), budget(method, given, CONTRACTS["float64"]), strict=True):
        assert (np.abs(got - midpoints(exact)) <= expected(bound, "float64").budget).all()


def recurrent(q, k, v, beta, initial_state, g=None, half=None):
    state, out = initial_state, []
    for t in range(q.shape[2]):
        if g is not None:
            state = np.exp(g[:, :, t])[..., None, None] * state
        written = beta[:, :, t, None] * (v[:, :, t] - (k[:, :, t, None] @ state)[:, :, 0])
        state = state + k[:, :, t, :, None] * written[:, :, None]
        out.append((q[:, :, t, None] @ state)[:, :, 0] * np.float32(0.5))
    return np.stack(out, axis=2), state


def chunked(q, k, v, beta, initial_state, g=None, size=16):
    state, out, beta = initial_state, [], beta[..., None]
    g = np.zeros_like(beta) if g is None else g[..., None]
    for start in range(0, q.shape[2], size):
        a, b, c, part, gates = (x[:, :, start : start + size] for x in (q, k, v, beta, g))
        total = np.cumsum(gates, axis=2, dtype=np.float32)
        decay = np.exp(np.where(np.tri(total.shape[2], dtype=bool), total - total.swapaxes(-1, -2), -np.inf))
        system = np.tril(part * (b @ b.swapaxes(-1, -2)) * decay, -1) + np.eye(total.shape[2], dtype=np.float32)
        written = np.linalg.solve(system, part * (c - (b * np.exp(total)) @ state))
        out.append(((a * np.exp(total)) @ state + ((a @ b.swapaxes(-1, -2)) * decay) @ written) * np.float32(0.5))
        end = total[:, :, -1:]
        state = np.exp(end) * state + (b * np.exp(end - total)).swapaxes(-1, -2) @ written
    return np.concatenate(out, axis=2), state


def ratios(kernel, method, seed, strength, length, change=lambda given: given):
    given = arguments(method, seed, length, strength, np.float32)
    with np.errstate(all="ignore"):
        outputs = kernel(**change(given))
    for got, bound in zip(outputs, budget(method, {**given, "scale": 0.5}, CONTRACTS["float32"]), strict=True):
        want = expected(bound, "float32")
        yield np.abs(got - want.value) / want.budget


@BOTH
@pytest.mark.parametrize("kernel", [recurrent, chunked])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_honest_float32_kernels_stay_within_the_budget(kernel, method, strength):
    for seed in range(4):
        for ratio in ratios(kernel, method, seed, strength, length=80):
            assert ratio.max() <= 1


@pytest.mark.parametrize("kernel", [recurrent, chunked])
def test_an_early_value_that_is_replaced_leaves_its_rounding_in_a_chunk(kernel):
    """A chunk's sums do not forget a huge value as the state does."""
    given = arguments(DELTA, 7, 64, dtype=np.float32, width=1)
    given["beta"][:] = 1
    given["v"][:, :, :8] *= 1e4
    outputs = kernel(**given)
    for got, bound in zip(outputs, budget(DELTA, {**given, "scale": 0.5}, CONTRACTS["float32"]), strict=True):
        want = expected(bound, "float32")
        assert (np.abs(got - want.value) <= want.budget).all()


@BOTH
def test_a_beta_that_is_off_by_one_in_a_thousand_leaves_the_budget(method):
    def off(given):
        return given | {"beta": given["beta"] * np.float32(0.999)}

    assert not all((ratio <= 1).all() for ratio in ratios(recurrent, method, 0, 0.01, 80, off))


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        (DELTA, {"beta": np.full((2, 3, 9), 1.5)}, r"beta\[0, 0, 0\]=1.5, but should be from 0 to 1"),
        (GATED, {"g": np.full((2, 3, 9), 0.5)}, r"g\[0, 0, 0\]=0.5, but should be at most 0"),
    ],
)
def test_gates_and_parts_out_of_range_are_named(method, changes, words):
    with pytest.raises(OptionError, match=words):
        method(**arguments(method, 8) | changes)


@BOTH
def test_nothing_comes_of_an_empty_sequence_but_the_state(method):
    given = arguments(method, 9, length=0)
    out, state = method(**given)
    assert out.shape == (2, 3, 0, 5)
    np.testing.assert_array_equal(state, given["initial_state"])
    for bound, got in zip(budget(method, given, CONTRACTS["float32"]), (out, state), strict=True):
        np.testing.assert_array_equal(bound.value, got)


def test_a_state_that_overflows_exempts_the_chunk_before_it():
    """Long keys let the state grow; causality hides a later infinity by a factor of 0, which makes it NaN."""
    given = arguments(DELTA, 10, 300, dtype=np.float32)
    given["k"] = np.broadcast_to(3 * given["k"][:, :, :1], given["k"].shape)
    given["beta"][:] = np.where(np.arange(300) >= 200, 1, 0.05)
    bounds = budget(DELTA, given, CONTRACTS["float32"])
    with np.errstate(all="ignore"):
        outputs = chunked(**given)
        steps = [recurrent(**given)[0][:, :, t] for t in (0, 100)]
    exempt = np.isinf(expected(bounds[0], "float32").budget).all(axis=(0, 1, 3))
    first = int(np.argmax(exempt))
    assert 0 < first <= 200
    assert exempt[first:].all()
    assert np.isfinite(outputs[0][:, :, :first]).all()
    assert all(np.isfinite(step).all() for step in steps)
    assert np.isinf(bounds[1].full_error).all()


def test_keys_so_long_that_a_chunk_overflows_whatever_its_values_are_exempt():
    given = arguments(DELTA, 11, 60, dtype=np.float32) | {"v": np.zeros((2, 3, 60, 5), np.float32)}
    given["initial_state"] = np.zeros_like(given["initial_state"])
    given["k"] = np.broadcast_to(8 * given["k"][:, :, :1], given["k"].shape)
    given["beta"][:] = 1
    for bound in budget(DELTA, given, CONTRACTS["float32"]):
        assert np.isinf(bound.full_error).all()
    given["k"] = given["k"] / 8
    for bound in budget(DELTA, given, CONTRACTS["float32"]):
        assert not bound.full_error.any()
