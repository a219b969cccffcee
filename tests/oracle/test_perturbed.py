"""The perturbed reading, validated against a machine that rounds and against the running bound."""

import numpy as np
import pytest

from oracle import METHODS
from oracle.readings import budget, expected, perturbed, running_bound, value
from oracle.readings.contract import CONTRACTS, LAMBDA
from oracle.readings.ops import as_operand
from oracle.readings.perturbed import Noise, Perturbed, UnperturbedOperation, spread
from oracle.readings.recurrences import as_state
from tests.oracle.rounding_machine import Machine

FLOAT32 = CONTRACTS["float32"]
DENSE = ("attention", "attention_with_lse", "merge_attention_states")
DELTA = ("delta_rule", "gated_delta_rule")
DECAYING = ("gated_linear_attention", "retention", *DELTA)

# One rounding bounded by u gets LAMBDA standard deviations of u, and at most twice that from its neighbours.
LOOSEST = 2 * LAMBDA


def given(method, seed, length=12):
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    if method == "merge_attention_states":
        return {"outs": normal((3, 2, 2, length, 3)), "lses": 2 * normal((3, 2, 2, length))}
    arguments = {"q": normal((2, 2, length, 6)), "k": normal((2, 2, length, 6)), "v": normal((2, 2, length, 5))}
    if method == "retention":
        return arguments | {"decay": np.array([0.875, 1.0])}
    if method == "gated_linear_attention":
        return arguments | {"g": -rng.random((2, 2, length, 6))}
    if method in DELTA:
        arguments["k"] /= np.linalg.norm(arguments["k"], axis=-1, keepdims=True)
        arguments |= {"beta": rng.random((2, 2, length)), "initial_state": normal((2, 2, 6, 5))}
    return arguments | ({"g": -rng.random((2, 2, length))} if method == "gated_delta_rule" else {})


def run_on(machine, method, arguments):
    """What a program of the machine computes, and the numbers of its format that it is given."""
    stored = {name: machine.stored(array) for name, array in arguments.items()}
    with np.errstate(all="ignore"):
        outputs = METHODS[method].spec(**{name: machine.lift(array) for name, array in stored.items()})
    return [output.value for output in (outputs if isinstance(outputs, tuple) else (outputs,))], stored


DIRECTED = [(method, rounding) for rounding in ("up", "down") for method in (*DENSE, *DELTA)]


# Errors that all point one way are the worst that a format may do, not what nearest rounding does. Sums of a non-contracting
# recurrence may then leave the samples by a tenth (retention in float16), not the bound, which judges them.
@pytest.mark.parametrize(
    ("method", "rounding"), [(method, rounding) for rounding in ("nearest", "random") for method in (*DENSE, *DECAYING)] + DIRECTED
)
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_no_error_of_a_rounding_machine_exceeds_it(method, name, rounding):
    for seed in range(4):
        machine = Machine(name, rounding)
        got, stored = run_on(machine, method, given(method, seed))
        for output, (exact, allowed) in zip(got, perturbed(METHODS[method], stored, machine.contract), strict=True):
            assert (np.abs(output - exact) <= allowed).all(), seed


@pytest.mark.parametrize("method", DELTA)
@pytest.mark.parametrize("equal", [False, True])
def test_no_error_of_a_long_recurrence_exceeds_it(method, equal):
    """Equal tokens repeat the same rounding error at every step, which does not average out."""
    arguments = given(method, 5, length=400)
    if equal:
        arguments = {name: np.broadcast_to(x[:, :, :1], x.shape) if name != "initial_state" else x for name, x in arguments.items()}
    machine = Machine("float32")
    got, stored = run_on(machine, method, arguments)
    for output, (exact, allowed) in zip(got, perturbed(METHODS[method], stored, machine.contract), strict=True):
        assert (np.abs(output - exact) <= allowed).all()


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=lambda contract: contract.name)
@pytest.mark.parametrize("method", DENSE)
def test_it_is_no_looser_than_the_bound_but_for_its_margin(method, contract):
    """The bound adds up absolute values: nothing that is smaller by more than the margin can be right on both sides."""
    arguments = given(method, 7)
    for bound, (exact, allowed) in zip(
        running_bound(METHODS[method], arguments, contract), perturbed(METHODS[method], arguments, contract), strict=True
    ):
        np.testing.assert_array_equal(exact, bound.value)
        finite = np.isfinite(bound.full_error)
        assert (allowed[finite] <= LOOSEST * bound.full_error[finite]).all()


def test_the_value_underneath_is_that_of_the_specification():
    for method in (*DENSE, *DECAYING):
        arguments = given(method, 8)
        for got, (exact, allowed) in zip(value(METHODS[method], arguments), perturbed(METHODS[method], arguments, FLOAT32), strict=True):
            assert (np.abs(got - exact) <= allowed * 2.0**-20).all()  # products of other strides add up in another order


def test_it_is_the_same_every_time():
    arguments = given("delta_rule", 9)
    first, second = (perturbed(METHODS["delta_rule"], arguments, FLOAT32) for _ in range(2))
    for (_, one), (_, other) in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_budget_of_a_contracting_method_is_the_smaller_of_both():
    arguments = given("delta_rule", 10, length=64)
    method = METHODS["delta_rule"]
    for got, bound, (_, allowed) in zip(
        budget(method, arguments, FLOAT32), running_bound(method, arguments, FLOAT32), perturbed(method, arguments, FLOAT32), strict=True
    ):
        np.testing.assert_array_equal(got.full_error, np.minimum(bound.full_error, allowed))
    # The bound has long lost what the samples still know.
    assert (bound.full_error > 1e3 * got.full_error).all()


def test_the_budget_of_other_methods_is_the_bound():
    arguments = given("attention", 11)
    [got], [bound] = (reading(METHODS["attention"], arguments, FLOAT32) for reading in (budget, running_bound))
    np.testing.assert_array_equal(got.full_error, bound.full_error)


def test_what_comes_of_zeros_alone_is_exact():
    arguments = given("delta_rule", 12) | {"v": np.zeros((2, 2, 12, 5)), "initial_state": np.zeros((2, 2, 6, 5))}
    for exact, allowed in perturbed(METHODS["delta_rule"], arguments, FLOAT32):
        assert not exact.any()
        assert not allowed.any()


def test_elements_of_other_scale_do_not_share_their_errors():
    """Columns of values may lie twenty orders of magnitude apart; the small one keeps a budget of its own size."""
    arguments = given("delta_rule", 13)
    arguments = arguments | {name: arguments[name] * np.array([1.0, 1e-20, 1e20, 1.0, 1e-10]) for name in ("v", "initial_state")}
    for exact, allowed in perturbed(METHODS["delta_rule"], arguments, FLOAT32):
        largest = np.abs(exact).max(axis=(0, 1, 2))
        assert (allowed.max(axis=(0, 1, 2)) < 1e-4 * largest).all()


def test_outside_the_range_of_the_contract_anything_goes():
    arguments = given("delta_rule", 14) | {"k": np.full((2, 2, 12, 6), 300.0)}
    _, (state, allowed) = perturbed(METHODS["delta_rule"], arguments, CONTRACTS["float16-full"])
    assert np.isfinite(state).all()
    assert np.isinf(allowed).any()


def array(values, contract=FLOAT32):
    return Perturbed.exact(np.asarray(values, np.float64), Noise(contract))


@pytest.mark.parametrize(
    ("operation", "exact_error"),
    [
        (lambda x: x + 1.0, 3.0),
        (lambda x: x * x, 4.0),
        (lambda x: x / 3.0, 2 * 2 / 3),
        (np.sqrt, 2**0.5),
    ],
)
def test_an_operation_gets_its_rounding(operation, exact_error):
    allowed = spread(operation(array([2.0])))
    unit = FLOAT32.unit_roundoff
    assert LAMBDA * unit * exact_error * 0.99 <= allowed[0] <= LOOSEST * unit * exact_error * 1.01


@pytest.mark.parametrize("operation", [lambda x: -x, abs, lambda x: np.maximum(x, 0.0), lambda x: x.reshape(1, 2), lambda x: x[::-1]])
def test_what_moves_or_selects_does_not_round(operation):
    assert not spread(operation(array([2.0, -3.0]))).any()


def test_axes_are_those_of_the_array_not_of_its_samples():
    values = np.arange(24.0).reshape(2, 3, 4)
    x = array(values)
    for operation in (
        lambda a: np.sum(a, axis=0), lambda a: np.sum(a, axis=(1, 2), keepdims=True), lambda a: np.cumsum(a, axis=1),
        lambda a: np.moveaxis(a, 0, -1), lambda a: np.swapaxes(a, 0, 1), lambda a: np.transpose(a, (2, 0, 1)),
        lambda a: np.expand_dims(a, 1), lambda a: np.stack([a, a], axis=1), lambda a: np.concatenate([a, a], axis=2),
        lambda a: np.max(a, axis=1), lambda a: np.einsum("abc,dc->abd", a, values[0]), lambda a: np.broadcast_to(a[:1], (5, 3, 4)),
        lambda a: np.where(values > 3, a, -1.0), lambda a: a[:, [0, 2], None], lambda a: np.repeat(a, 2, axis=0),
        lambda a: np.matmul(a, values[0].T), lambda a: np.matmul(values[0], np.swapaxes(a, 1, 2)), lambda a: np.flip(a, 0),
    ):  # fmt: skip
        np.testing.assert_array_equal(operation(x).value, operation(values))


def test_an_operation_without_a_rule_is_refused():
    with pytest.raises(UnperturbedOperation, match=r"numpy\.arctan \(__call__\) has no rule"):
        np.arctan(array([1.0]))
    with pytest.raises(UnperturbedOperation, match=r"numpy\.sort has no rule"):
        np.sort(array([1.0]))
    with pytest.raises(UnperturbedOperation, match="samples would be lost"):
        np.asarray(array([1.0]))


@pytest.mark.parametrize(("rounded", "contract"), [(as_operand, "bfloat16"), (as_state, "bfloat16-state"), (as_state, "float16-state")])
def test_contracts_round_operands_and_states(rounded, contract):
    contract = CONTRACTS[contract]
    unit = contract.operand if rounded is as_operand else contract.state
    assert LAMBDA * unit * 0.99 <= spread(rounded(array([1.0], contract)))[0] <= LOOSEST * unit * 1.01
    assert not spread(rounded(array([1.0]))).any()


@pytest.mark.parametrize("method", DECAYING)
def test_a_state_in_16_bits_is_admitted_by_the_contract_that_says_so(method):
    """A kernel that keeps its state in bfloat16 leaves the default budget, and stays within that of bfloat16-state."""

    class HalfState(Machine):
        """Rounds what has the shape of the state to bfloat16, and everything else to float32."""

        def add(self, a, b):
            return super().add(a, b)

        def round(self, exact, roundoffs=1.0):
            exact = np.asarray(exact)
            if exact.shape[-2:] == (6, 5) and exact.ndim == 4 and roundoffs == 1.0:
                return Machine("bfloat16").stored(exact)
            return super().round(exact, roundoffs)

    got, stored = run_on(HalfState("float32"), method, given(method, 15, length=60))
    inside = {}
    for name in ("bfloat16-float32-weights", "bfloat16-state"):
        wanted = [expected(bound, "float32") for bound in budget(METHODS[method], stored, CONTRACTS[name])]
        inside[name] = all((np.abs(output - want.value) <= want.budget).all() for output, want in zip(got, wanted, strict=True))
    assert inside == {"bfloat16-float32-weights": False, "bfloat16-state": True}
