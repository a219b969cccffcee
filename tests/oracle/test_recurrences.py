"""Readings of recurrences: no smaller than the composition of their operations' rules, and wide enough for every kind of chunk."""

import numpy as np
import pytest

from oracle import METHODS
from oracle.formats import FORMATS
from oracle.readings import budget, expected, running_bound
from oracle.readings.bounded import Bounded, split
from oracle.readings.contract import CONTRACTS
from oracle.readings.decayed_sums import decayed_states
from oracle.readings.perturbed import Noise, Perturbed, spread
from oracle.readings.recurrences import as_state
from oracle.readings.replaced_values import replaced_values

GATED = METHODS["gated_linear_attention"]
NAMES = ("float32", "tf32", "bfloat16", "bfloat16-state", "float16", "float16-full", "float64")
GATES = {
    "slow": lambda rng, shape: -rng.uniform(0, 0.02, shape),
    "usual": lambda rng, shape: -np.logaddexp(0.0, -2 * rng.standard_normal(shape) - 1),
    "mixed": lambda rng, shape: np.where(rng.random(shape) < 0.1, -rng.uniform(20, 300, shape), -rng.uniform(0, 0.1, shape)),
    "strong": lambda rng, shape: -rng.uniform(0, 70, shape),
}


def arguments(seed, length=30, kind="usual"):
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((2, 1, 2, length, 6))
    return {
        "q": q, "k": k, "v": rng.standard_normal((1, 2, length, 5)), "g": GATES[kind](rng, (1, 2, length, 6)),
        "beta": rng.random((1, 2, length)), "first": rng.standard_normal((1, 2, 6, 5)),
    }  # fmt: skip


def lifted(given, lift):
    return {name: lift(np.asarray(array, np.longdouble)) for name, array in given.items()}


def gated_by_rules(first, g, k, v):
    """Every state by the rules of its operations, with nothing for chunks."""
    state, decays = as_state(first), np.exp(g)
    states = [state]
    for t in range(k.shape[2]):
        state = as_state(state * decays[:, :, t, :, None] + k[:, :, t, :, None] * v[:, :, t, None, :])
        states.append(state)
    return np.stack(states, axis=2)


def delta_by_rules(first, q, k, v, beta, decay):
    state, rows = as_state(first), []
    for t in range(q.shape[2]):
        state = state * decay[:, :, t, :, None]
        known = np.matmul(k[:, :, t, None, :], state)[:, :, 0]
        written = (v[:, :, t] - known) * beta[:, :, t, None]
        state = as_state(state + k[:, :, t, :, None] * written[..., None, :])
        rows.append(np.matmul(q[:, :, t, None, :], state)[:, :, 0])
    return np.stack(rows, axis=2), state


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_of_decayed_states_covers_the_rules_of_its_operations(name):
    contract = CONTRACTS[name]
    for seed in range(3):
        given = lifted(arguments(seed), lambda x: Bounded.exact(x, contract))
        first, g, k, v = (given[part] for part in ("first", "g", "k", "v"))
        got, want = split(decayed_states(first, np.exp(g), k, v)), split(gated_by_rules(first, g, k, v))
        np.testing.assert_array_equal(got[0], want[0])
        assert (got[1] >= want[1] * (1 - 1e-12)).all()
        assert np.isfinite(got[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_of_replaced_values_covers_the_rules_of_its_operations(name):
    contract = CONTRACTS[name]
    for seed in range(3):
        given = lifted(arguments(seed, length=8), lambda x: Bounded.exact(x, contract))
        first, q, k, v, beta, decay = (given[part] for part in ("first", "q", "k", "v", "beta", "g"))
        decay = np.exp(decay[..., :1])
        for got, want in zip(replaced_values(first, q, k, v, beta, decay), delta_by_rules(first, q, k, v, beta, decay), strict=True):
            np.testing.assert_allclose(got.value.astype(float), want.value.astype(float), rtol=1e-12)
            assert (got.full_error >= want.full_error * (1 - 1e-12)).all()


@pytest.mark.parametrize("name", ["float32", "bfloat16-state", "float16-full"])
def test_the_samples_of_replaced_values_spread_as_far_as_those_of_its_operations(name):
    for seed in range(3):
        given = arguments(seed, length=60)
        given["k"] /= np.linalg.norm(given["k"], axis=-1, keepdims=True)
        spreads = []
        for recurrence in (replaced_values, delta_by_rules):
            noise = Noise(CONTRACTS[name])
            made = lifted(given, lambda x, noise=noise: Perturbed.exact(x, noise))
            first, q, k, v, beta, decay = (made[part] for part in ("first", "q", "k", "v", "beta", "g"))
            spreads.append(np.concatenate([spread(x).ravel() for x in recurrence(first, q, k, v, beta, np.exp(decay[..., :1]))]))
        assert np.median(spreads[0] / spreads[1]) > 1  # those of chunks come on top
        assert (spreads[0] / spreads[1]).min() > 0.2


@pytest.mark.parametrize("rule", ["float16-state", "float16-full"])
def test_a_state_beyond_the_range_of_its_format_is_unknown_from_then_on(rule):
    given = arguments(5) | {"initial_state": None}
    given["v"][:, :, 10] *= 1e6
    call = {name: given[name] for name in "qkvg"}
    _, state = running_bound(GATED, call, CONTRACTS[rule])
    assert np.isinf(state.full_error).any()
    out, _ = running_bound(GATED, call, CONTRACTS[rule])
    assert np.isfinite(out.full_error[:, :, :10]).all()
    assert np.isinf(out.full_error[:, :, 10:]).all()


def cumulative(gates, scan):
    """Sums of gates one after the other, or by a scan that doubles its stride, as on a GPU."""
    if not scan:
        return np.cumsum(gates, axis=2, dtype=np.float32)
    total, stride = gates.copy(), 1
    while stride < total.shape[2]:
        moved = np.zeros_like(total)
        moved[:, :, stride:] = total[:, :, :-stride]
        total, stride = total + moved, 2 * stride
    return total


def chunked(given, size, scan, name):
    """An honest kernel in chunks, sums in float32, that rounds what it feeds to matrix products to a format."""

    def cast(x):
        return x.astype(FORMATS[name].dtype).astype(np.float32)

    q, k, v, g, state = (given[part].astype(np.float32) for part in ("q", "k", "v", "g", "initial_state"))
    out = []
    for start in range(0, q.shape[2], size):
        rows, keys, values, gates = (x[:, :, start : start + size] for x in (q, k, v, g))
        total = cumulative(gates, scan)
        between = np.where(np.tri(total.shape[2], dtype=bool)[:, :, None], total[:, :, :, None] - total[:, :, None], -np.inf)
        weights = np.einsum("bhijd,bhjd->bhij", cast(rows[:, :, :, None] * np.exp(between)), keys)
        out.append((cast(weights) @ values + cast(rows * np.exp(total)) @ cast(state)) * np.float32(0.5))
        state = np.exp(total[:, :, -1])[..., None] * state + cast(np.exp(total[:, :, -1:] - total) * keys).swapaxes(-1, -2) @ values
    return np.concatenate(out, axis=2).astype(FORMATS[name].dtype), state


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(("size", "scan"), [(16, False), (64, True), (128, True)])
def test_honest_chunks_stay_within_the_budget_in_every_format(size, scan, kind, name):
    for seed in range(2):
        given = {part: array for part, array in arguments(seed, 260, kind).items() if part in "qkvg"}
        given = {part: array.astype(FORMATS[name].dtype) for part, array in given.items()}
        given["initial_state"] = arguments(seed)["first"].astype(np.float32)
        bounds = budget(GATED, {**given, "scale": 0.5}, CONTRACTS[name])
        for got, bound, form in zip(chunked(given, size, scan, name), bounds, (name, "float32"), strict=True):
            want = expected(bound, form)
            assert (np.abs(got.astype(np.float64) - want.value) <= want.budget).all()


@pytest.mark.parametrize(("name", "off"), [("float32", 1e-5), ("bfloat16", 1e-3), ("float16", 1e-3)])
def test_a_gate_that_is_slightly_wrong_leaves_the_budget_of_a_long_sequence_of_one_sign(name, off):
    rng = np.random.default_rng(0)
    given = {part: np.abs(rng.normal(6, 0.25, (1, 1, 1100, 2))) for part in "qkv"} | {"g": GATES["slow"](rng, (1, 1, 1100, 2))}
    given = {part: array.astype(FORMATS[name].dtype) for part, array in given.items()}
    given["initial_state"] = np.zeros((1, 1, 2, 2), np.float32)
    bounds = budget(GATED, {**given, "scale": 0.5}, CONTRACTS[name])
    inside = []
    for wrong in (0.0, off):
        outputs = chunked(given | {"g": given["g"].astype(np.float32) - np.float32(wrong)}, 16, False, name)
        wanted = [expected(bound, form) for bound, form in zip(bounds, (name, "float32"), strict=True)]
        inside.append(
            all((np.abs(got.astype(np.float64) - want.value) <= want.budget).all() for got, want in zip(outputs, wanted, strict=True))
        )
    assert inside == [True, False]
