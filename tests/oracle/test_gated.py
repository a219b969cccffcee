"""Attention with decay: the meaning as a sum over pairs, enclosures, and budgets against recurrent and chunked kernels."""

import numpy as np
import pytest

from oracle import METHODS, OptionError
from oracle.readings import budget, enclosure, expected, value
from oracle.readings.balls import midpoints, radii
from oracle.readings.contract import CONTRACTS

GATED, RETENTION = METHODS["gated_linear_attention"], METHODS["retention"]
STRENGTHS = (0.0, 0.01, 1.0, 30.0, 1000.0)


def arguments(seed, length=9, strength=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, 2, 3, length, 4))
    v, g = rng.normal(size=(2, 3, length, 5)), -strength * rng.random((2, 3, length, 4))
    given = {"q": q, "k": k, "v": v, "g": g, "initial_state": rng.normal(size=(2, 3, 4, 5))}
    return {name: array.astype(dtype) for name, array in given.items()}


def by_pairs(q, k, v, g, initial_state, scale):
    """Every weight as a product of its own, from plain sums of gates."""
    out = np.zeros((*q.shape[:3], v.shape[3]))
    for b, h, i in np.ndindex(q.shape[:3]):
        for j in range(i + 1):
            decay = np.exp([sum(g[b, h, j + 1 : i + 1, d]) for d in range(q.shape[3])])
            out[b, h, i] += scale * (q[b, h, i] * decay * k[b, h, j]).sum() * v[b, h, j]
        entered = np.exp(g[b, h, : i + 1].sum(axis=0))[:, None] * initial_state[b, h]
        out[b, h, i] += scale * q[b, h, i] @ entered
    return out


@pytest.mark.parametrize("strength", STRENGTHS)
def test_an_output_is_the_sum_over_earlier_tokens_and_the_state_that_came_in(strength):
    given = arguments(1, strength=strength)
    out, state = GATED(**given, scale=0.7)
    np.testing.assert_allclose(out, by_pairs(**given, scale=0.7), rtol=1e-11, atol=1e-12)
    onwards, _ = GATED(
        **{name: given[name][:, :, :1] * 0 for name in "qkvg"} | {"q": np.ones((2, 3, 1, 4))}, initial_state=state, scale=1.0
    )
    np.testing.assert_allclose(onwards[:, :, 0], state.sum(axis=2), rtol=1e-12)


def test_a_sequence_may_be_cut_anywhere_and_its_state_handed_on():
    given = arguments(2, length=11)
    whole, state = GATED(**given)
    for cut in (0, 1, 5, 11):
        first = {name: given[name][:, :, :cut] for name in "qkvg"}
        second = {name: given[name][:, :, cut:] for name in "qkvg"}
        before, handed = GATED(**first, initial_state=given["initial_state"])
        after, last = GATED(**second, initial_state=handed)
        np.testing.assert_allclose(np.concatenate([before, after], axis=2), whole, rtol=1e-12)
        np.testing.assert_allclose(last, state, rtol=1e-12)


def test_retention_is_gated_attention_with_one_gate_for_each_head():
    given = arguments(3)
    decay = np.array([1.0, 0.9, 0.25])
    gates = np.broadcast_to(np.log(decay)[None, :, None, None], given["g"].shape)
    want = GATED(given["q"], given["k"], given["v"], gates, initial_state=given["initial_state"])
    got = RETENTION(given["q"], given["k"], given["v"], decay, initial_state=given["initial_state"])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_value_lies_in_its_enclosure_to_one_part_in_1e12_of_its_terms(strength):
    given = arguments(4, strength=strength)
    terms = value(GATED, {name: np.abs(array) if name != "g" else array for name, array in given.items()})
    for got, exact, scale in zip(value(GATED, given), enclosure(GATED, given), terms, strict=True):
        assert (np.abs(got - midpoints(exact)) + radii(exact) <= 1e-12 * scale + np.finfo(float).tiny).all()


def recurrent(q, k, v, g, initial_state):
    state, out = initial_state, []
    for t in range(q.shape[2]):
        state = np.exp(g[:, :, t])[..., None] * state + k[:, :, t, :, None] * v[:, :, t, None]
        out.append((q[:, :, t, :, None] * state).sum(axis=2) * np.float32(0.5))
    return np.stack(out, axis=2), state


def chunked(q, k, v, g, initial_state, size=8):
    state, out = initial_state, []
    for start in range(0, q.shape[2], size):
        a, b, c, gates = (x[:, :, start : start + size] for x in (q, k, v, g))
        total = np.cumsum(gates, axis=2, dtype=np.float32)
        between = np.where(np.tri(total.shape[2], dtype=bool)[:, :, None], total[:, :, :, None] - total[:, :, None], -np.inf)
        weights = np.einsum("bhid,bhijd,bhjd->bhij", a, np.exp(between), b)
        out.append((weights @ c + (a * np.exp(total)) @ state) * np.float32(0.5))
        state = np.exp(total[:, :, -1])[..., None] * state + (np.exp(total[:, :, -1:] - total) * b).swapaxes(-1, -2) @ c
    return np.concatenate(out, axis=2), state


def dividing(q, k, v, g, initial_state, size=8):
    """Divides by a cumulative decay, which overflows when that is strong."""
    state, out = initial_state, []
    for start in range(0, q.shape[2], size):
        a, b, c, gates = (x[:, :, start : start + size] for x in (q, k, v, g))
        total = np.cumsum(gates, axis=2, dtype=np.float32)
        rows, keys = a * np.exp(total), b * np.exp(-total)
        weights = np.where(np.tri(total.shape[2], dtype=bool), rows @ keys.swapaxes(-1, -2), 0)
        out.append((weights @ c + rows @ state) * np.float32(0.5))
        state = np.exp(total[:, :, -1])[..., None] * (state + keys.swapaxes(-1, -2) @ c)
    return np.concatenate(out, axis=2), state


def ratios(kernel, seed, strength, length):
    given = arguments(seed, length, strength, np.float32)
    with np.errstate(all="ignore"):
        outputs = kernel(**given)
    for got, bound in zip(outputs, budget(GATED, {**given, "scale": 0.5}, CONTRACTS["float32"]), strict=True):
        want = expected(bound, "float32")
        yield np.abs(got - want.value) / want.budget


@pytest.mark.parametrize("kernel", [recurrent, chunked])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_honest_float32_kernels_stay_within_the_budget(kernel, strength):
    for seed in range(6):
        for ratio in ratios(kernel, seed, strength, length=40):
            assert ratio.max() <= 1


def test_a_kernel_that_divides_by_cumulative_decays_leaves_it_where_they_are_strong():
    assert not all((ratio <= 1).all() for ratio in ratios(dividing, 0, 30.0, length=40))


@pytest.mark.parametrize("slow", [0.0, 0.01])
def test_a_wrong_gate_of_one_in_fifty_thousand_leaves_the_budget(slow):
    def off(q, k, v, g, initial_state):
        return recurrent(q, k, v, g - np.float32(2e-5), initial_state)

    assert not all((ratio <= 1).all() for ratio in ratios(off, 0, slow, length=40))


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        (GATED, {"g": np.full((2, 3, 9, 4), 0.5)}, r"g\[0, 0, 0, 0\]=0.5, but should be at most 0"),
        (RETENTION, {"decay": np.array([1.0, 0.0, 0.5])}, r"decay\[1\]=0.0, but should be above 0 and at most 1"),
        (RETENTION, {"decay": np.array([1.0, 1.5, 0.5])}, r"decay\[1\]=1.5"),
    ],
)
def test_gates_out_of_range_are_named(method, changes, words):
    given = {name: array for name, array in arguments(5).items() if name in ("q", "k", "v")}
    with pytest.raises(OptionError, match=words):
        method(**given, **changes)


def test_nothing_comes_of_an_empty_sequence_but_the_state():
    given = arguments(6, length=0)
    out, state = GATED(**given)
    assert out.shape == (2, 3, 0, 5)
    np.testing.assert_array_equal(state, given["initial_state"])
