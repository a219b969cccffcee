"""Every rule of the budget reading holds for a machine that rounds each operation, to nearest or as badly as it may."""

import itertools

import numpy as np
import pytest
from rounding_machine import Machine

from oracle.readings import bounded
from oracle.readings.bounded import Bounded
from oracle.readings.contract import CONTRACTS

FORMATS = ("float32", "float16", "bfloat16")
ROUNDINGS = ("nearest", "random", "up", "down")


def worst_ratio(expression, machine, *arrays):
    """Largest error over bound; where the bound is infinite anything may come out."""
    stored = [machine.stored(array) for array in arrays]
    with np.errstate(all="ignore"):
        claimed = expression(*(Bounded.exact(array, machine.contract) for array in stored))
        got = expression(*(machine.lift(array) for array in stored))
    outputs = zip(claimed, got, strict=True) if isinstance(claimed, tuple) else [(claimed, got)]
    return max((ratio_of(own.value, exact) for exact, own in outputs), default=0.0)


def ratio_of(got, claimed):
    error = np.broadcast_to(claimed.full_error, claimed.shape)
    assert got.shape == claimed.shape and not np.isnan(error).any() and (error >= 0).all()
    judged = (error < np.inf) & ~((got == claimed.value) | (np.isnan(got) & np.isnan(claimed.value)))
    if not judged.any():
        return 0.0
    with np.errstate(invalid="ignore"):
        ratio = np.abs(got - claimed.value)[judged] / np.maximum(error[judged], 1e-300)
    return float("inf") if np.isnan(ratio).any() else float(ratio.max())


def data(kind, rng, shape, form):
    """Numbers that a rule might stumble over, within the range of the format."""
    normal = rng.standard_normal(shape)
    large, small = {"float16": (100.0, 1e-6), "float32": (1e17, 1e-38), "bfloat16": (1e17, 1e-38)}[form]
    made = {
        "normal": normal,
        "positive": np.abs(normal) + 0.1,
        "constant": np.full(shape, 1.2345678),
        "equal rows": np.broadcast_to(normal[:1], shape),
        "ramp": np.arange(normal.size).reshape(shape) / 8 - 3,
        "huge": normal * large,
        "tiny": normal * small,
        "mixed": normal * large ** rng.uniform(-1, 1, shape),
        "zeros": np.where(rng.random(shape) < 0.5, 0.0, normal),
    }
    return made[kind]


KINDS = ("normal", "positive", "constant", "equal rows", "ramp", "huge", "tiny", "mixed", "zeros")

# One step, and steps upon the errors of others: cancellation, errors as large as the value, quotients of differences.
ELEMENTWISE = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "cancel": lambda a, b: (a + b) - a,
    "cancelled product": lambda a, b: (a + b) * (a - b) - a * a,
    "quotient of differences": lambda a, b: ((a + b) - a) / ((b + a) - a),
    "negative": lambda a, b: -(a * b),
    "absolute": lambda a, b: np.absolute(a - a * b),
    "maximum": lambda a, b: np.maximum(a * b, b + a),
    "minimum": lambda a, b: np.minimum(a * b, b + a),
    "exp": lambda a, b: np.exp(a),
    "exp of an error": lambda a, b: np.exp((a * b + b) - a * b),
    "log": lambda a, b: np.log(np.absolute(a)),
    "log of an error": lambda a, b: np.log(np.absolute((a + b) - b)),
    "tanh": lambda a, b: np.tanh(a),
    "tanh of an error": lambda a, b: np.tanh((a * b + b) - a * b),
    "cos": lambda a, b: np.cos(a),
    "cos of an error": lambda a, b: np.cos((a * b + b) - a * b),
    "sin": lambda a, b: np.sin(a) * b,
    "sin of an error": lambda a, b: np.sin(a * b) - np.sin(b * a + b),
    "sqrt": lambda a, b: np.sqrt(np.absolute(a)),
    "sqrt of an error": lambda a, b: np.sqrt(np.absolute((a + b) - b)),
    "where": lambda a, b: np.where(np.eye(8, dtype=bool), a * b, b - a) * a,
    "where one side is exact": lambda a, b: np.where(np.eye(8, dtype=bool), a * b, 0.0) - a,
    "where everything is": lambda a, b: np.where(np.ones((8, 8), bool), a * b, 0.0) - a,
    "broadcast": lambda a, b: (a[:, :1] * b[:1]) + a,
    "plain operands": lambda a, b: (np.arange(8) - a) * np.arange(8) + b,
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_rules_hold_on_a_rounding_machine(name, form):
    rng = np.random.default_rng(1)
    pairs = itertools.product((kind for kind in KINDS if kind not in ("equal rows", "ramp")), repeat=2)
    for index, (kinds, rounding) in enumerate(itertools.product(pairs, ROUNDINGS)):
        a, b = (data(kind, rng, (8, 8), form) for kind in kinds)
        roundabout = (index + index // len(ROUNDINGS)) % 2 == 0
        how = {"exponentials": "base 2" if roundabout else "direct", "reciprocals": roundabout}
        assert worst_ratio(ELEMENTWISE[name], Machine(form, rounding, rng=rng, **how), a, b) <= 1, (rounding, kinds, how)


# Operations that sum, on (6, n) and (n, 5), and some that only move elements about before they do.
SUMS = {
    "sum": lambda a, b: np.sum(a * a, axis=-1),
    "sum keeping its axis": lambda a, b: np.sum(a, axis=0, keepdims=True) * a,
    "sum of all": lambda a, b: np.sum(a),
    "add.reduce": lambda a, b: np.add.reduce(a, axis=-1),
    "cumsum": lambda a, b: np.cumsum(a, axis=1),
    "cumsum over rows": lambda a, b: np.cumsum(a + a * a, axis=0),
    "matmul": lambda a, b: np.matmul(a, b),
    "matmul of errors": lambda a, b: np.matmul(a * a - a, b * b - b),
    "batched matmul": lambda a, b: np.matmul(a[None], b[None, None] * b),
    "einsum": lambda a, b: np.einsum("ij,jk->ik", a, b),
    "einsum over all": lambda a, b: np.einsum("ij,jk->k", a * a, b),
    "outer einsum": lambda a, b: np.einsum("ij,jk->ijk", a, b - b * b),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SUMS)
def test_summing_rules_hold_on_a_rounding_machine(name, form):
    rng = np.random.default_rng(2)
    for kind, fused, length in itertools.product(KINDS, (False, True), (1, 2, 7, 12, 100)):
        a, b = data(kind, rng, (6, length), form), data(kind, rng, (length, 5), form)
        # All roundings of a long sum in one direction is what independence excludes: there only short ones are asked for.
        longest = 2 if " all" in name else 12
        roundings = ROUNDINGS if length <= longest else ("nearest", "random")
        for rounding in roundings:
            machine = Machine(form, rounding, fused=fused, rng=rng)
            assert worst_ratio(SUMS[name], machine, a, b) <= 1, (kind, fused, length, rounding)


def long_terms(kind, rng, n):
    """Terms whose roundings conspire against a sum of them that runs from the first to the last."""
    scattered, tiny = rng.uniform(0.5, 1.5, n), 2.0 ** -rng.uniform(8, 26, n)
    spike = np.concatenate([[1.0], np.zeros(n - 1)])
    return {
        "equal": np.full(n, 1.2345678),
        "nearly equal": 1.2345678 * (1 + 1e-6 * rng.standard_normal(n)),
        "two values": np.where(np.arange(n) % 2, 1.2345678, 0.1234567),
        "scattered": scattered,
        "either sign": rng.standard_normal(n),
        "a ramp": np.arange(n) / 7,
        "falling": 0.9 ** np.arange(n),
        "one large, tiny": spike + tiny,
        "one large, all just lost": spike + 2.0**-24.01,
        "one large, nearly equal": spike + 2.0**-14 * (1 + 1e-6 * rng.standard_normal(n)),
        "one large, scattered below": spike + rng.uniform(0.3, 1, n) * 2.0**-24,
    }[kind]


LONG = (
    "equal", "nearly equal", "two values", "scattered", "either sign", "a ramp", "falling", "one large, tiny", "one large, all just lost",
    "one large, nearly equal", "one large, scattered below",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", LONG)
def test_sums_of_thousands_hold_whatever_their_terms_look_like(kind, form):
    rng = np.random.default_rng(3)
    for length, rounding in itertools.product((700, 4096), ("nearest", "random")):
        rows = np.stack([long_terms(kind, rng, length) for _ in range(4)])
        machine = Machine(form, rounding, rng=rng)
        for name, expression in (("sum", lambda a: np.sum(a, axis=-1)), ("cumsum", lambda a: np.cumsum(a, axis=1))):
            assert worst_ratio(expression, machine, rows) <= 1, (name, length, rounding)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", LONG)
def test_products_of_thousands_hold_whatever_their_factors_look_like(kind, form):
    rng = np.random.default_rng(4)
    for others, length in itertools.product(("equal", "scattered", "either sign", "one large, tiny", kind), (256, 1500)):
        left = np.stack([long_terms(kind, rng, length) for _ in range(3)])
        right = np.stack([long_terms(others, rng, length) for _ in range(3)], axis=-1)
        for a, b in ((left, right), (right.T, left.T)):
            machine = Machine(form, fused=bool(length % 3), rng=rng)
            assert worst_ratio(np.matmul, machine, a, b) <= 1, (others, length)


MOVES = {
    "swapaxes": lambda a: np.swapaxes(a, 0, 1),
    "transpose": lambda a: np.transpose(a, (1, 2, 0)),
    "moveaxis": lambda a: np.moveaxis(a, 0, -1),
    "reshape": lambda a: np.reshape(a, (4, 6)),
    "expand_dims": lambda a: np.expand_dims(a, 1),
    "squeeze": lambda a: np.squeeze(np.expand_dims(a, 1), 1),
    "broadcast_to": lambda a: np.broadcast_to(a, (5, 2, 3, 4)),
    "repeat": lambda a: np.repeat(a, 2, axis=1),
    "take": lambda a: np.take(a, [2, 0, 0], axis=1),
    "take_along_axis": lambda a: np.take_along_axis(a, np.zeros((2, 3, 1), int), axis=-1),
    "flip": lambda a: np.flip(a, axis=2),
    "concatenate": lambda a: np.concatenate([a, a * 1], axis=1) if isinstance(a, np.ndarray) else np.concatenate([a, a], axis=1),
    "stack": lambda a: np.stack([a, a], axis=1),
    "indexing": lambda a: a[1:, ::-1, [0, 3]],
    "reshape method": lambda a: a.reshape(3, 8),
    "max": lambda a: np.max(a, axis=-1),
    "amax": lambda a: np.amax(a, axis=-1, keepdims=True),
    "maximum.reduce": lambda a: np.maximum.reduce(a, axis=0),
    "negative": lambda a: np.negative(a),
    "absolute": lambda a: np.absolute(a),
}


@pytest.mark.parametrize("name", MOVES)
def test_an_operation_that_moves_elements_takes_their_errors_along(name):
    value = np.random.default_rng(5).permutation(24.0 * np.arange(24)).reshape(2, 3, 4)
    moved = MOVES[name](Bounded(value, value / 7, CONTRACTS["float32"]))
    np.testing.assert_array_equal(moved.value, MOVES[name](value))
    np.testing.assert_array_equal(moved.full_error, np.abs(moved.value) / 7)
    waiting = MOVES[name](Bounded(value, np.zeros(()), CONTRACTS["bfloat16"], operand=0.25))
    np.testing.assert_array_equal(waiting.full_error, np.abs(waiting.value) / 4)


def test_no_rule_is_without_a_test():
    tested = {word for name in [*ELEMENTWISE, *SUMS, *MOVES] for word in name.split()}
    names = set()
    for operation in bounded._RULES:
        ufunc, method = operation if isinstance(operation, tuple) else (operation, "__call__")
        names.add({"divide": "divide"}.get(ufunc.__name__, ufunc.__name__) + ("" if method == "__call__" else f".{method}"))
    assert names and names <= tested
