"""Rounding to a few bits in every reading: exact codes, one quantum at a boundary, never two."""

import numpy as np
import pytest

from oracle.codes import CODE_FORMATS
from oracle.readings import expected
from oracle.readings.balls import balls, midpoints, radii, working_precision
from oracle.readings.bounded import Bounded
from oracle.readings.contract import CONTRACTS
from oracle.readings.perturbed import Noise, Perturbed
from oracle.readings.quantised import Stepped, divided, exactly, largest_magnitude, power_of_two, quantised, special

FORMATS = ("int8", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn")
FLOAT32 = CONTRACTS["float32"]
E8M0 = CODE_FORMATS["float8_e8m0fnu"]


def drawn(form, seed, count=4000):
    """Numbers all over the range of a format, beyond it too, many of them at or close to a boundary."""
    rng = np.random.default_rng(seed)
    finite = np.unique(form.table[np.isfinite(form.table)])
    halfway = rng.choice((finite[1:] + finite[:-1]) / 2, count)
    near = halfway * (1 + rng.choice([0.0, 1e-7, -1e-7, 1e-4, -1e-4], count))
    wide = rng.standard_normal(count) * form.largest / 2
    return np.concatenate([near, wide, halfway])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("relative", [1e-7, 1e-3, 0.2])
def test_whatever_error_a_kernel_makes_its_code_is_within_the_budget_and_the_budget_is_reached(name, relative):
    form, rng = CODE_FORMATS[name], np.random.default_rng(1)
    x = drawn(form, 0)
    error = relative * np.abs(x) * rng.random(x.shape)
    bound = quantised(Bounded(x, error, FLOAT32), form)
    np.testing.assert_array_equal(bound.value, form.nearest(x))
    reached = np.zeros(x.shape)
    for part in np.linspace(-1, 1, 41):
        off = np.abs(form.nearest(x + part * error) - bound.value)
        assert (off <= bound.full_error).all()
        reached = np.maximum(reached, off)
    np.testing.assert_array_equal(reached, bound.full_error)


@pytest.mark.parametrize("name", FORMATS)
def test_a_small_error_leaves_nearly_all_codes_exact_and_the_others_one_quantum(name):
    form, rng = CODE_FORMATS[name], np.random.default_rng(2)
    x = rng.uniform(-form.largest, form.largest, 100_000)
    bound = quantised(Bounded(x, 1e-5 * np.abs(x), FLOAT32), form)
    free = bound.full_error > 0
    assert 0 < free.mean() < 5e-3
    finite = np.unique(form.table[np.isfinite(form.table)])
    # Away from zero, where numbers are not closer to each other.
    steps = np.searchsorted(finite, np.abs(bound.value) + bound.full_error) - np.searchsorted(finite, np.abs(bound.value))
    assert set(steps[free]) <= {0, 1}


def test_one_quantum_is_no_finding_and_two_are():
    form = CODE_FORMATS["int8"]
    want = expected(quantised(Bounded(np.array([2.5, 2.7, 40.0]), np.array([1e-5, 1e-5, 0.0]), FLOAT32), form), "float64")
    np.testing.assert_array_equal(want.budget >= 1, [True, False, False])
    assert (want.budget < 1.5).all()
    np.testing.assert_array_equal(want.wide, [True, False, False])


def test_a_code_is_finite_whatever_became_of_what_is_rounded():
    form = CODE_FORMATS["float8_e4m3fn"]
    bound = quantised(Bounded(np.array([3.0, -500.0]), np.array([np.inf, np.nan]), FLOAT32), form)
    np.testing.assert_array_equal(bound.full_error, [451.0, 896.0])


def test_balls_become_exact_numbers_or_hold_both_sides_of_a_boundary():
    form = CODE_FORMATS["int8"]
    with working_precision():
        third = balls(np.array([1.0])) / balls(np.array([3.0]))
        x = np.concatenate([balls(np.array([2.5, 3.5, -0.5, 126.9, 400.0, 2.75])), third * 7.5 / 1.0, balls(np.array([2.0])) + third / 1.0])
        got = quantised(x, form)
    np.testing.assert_array_equal(midpoints(got[:6]), [2, 4, 0, 127, 127, 3])
    assert (radii(got[:6]) == 0).all()
    assert midpoints(got[6:7]) == 2.5 and radii(got[6:7]) >= 0.5  # 7.5 / 3 up to the working precision: either side
    assert midpoints(got[7:]) == 2 and radii(got[7:]) == 0


def test_samples_are_rounded_one_by_one():
    form, x = CODE_FORMATS["int8"], np.array([1.4, 7.6])
    np.testing.assert_array_equal(quantised(Perturbed.exact(x, Noise(FLOAT32)), form).value, [1, 8])


def test_a_shift_of_the_exponent_is_exact_and_any_other_quotient_is_not():
    x = Bounded.exact(np.array([3.0, 3.0, 1e-38]), FLOAT32)
    quotient = divided(x, exactly(np.array([4.0, 3.0, 4.0]), x))
    np.testing.assert_array_equal(quotient.full_error > 0, [False, True, True])  # the last may be flushed to zero
    inexact = divided(x, Bounded(np.array([4.0]), np.array([1e-7]), FLOAT32))
    assert (inexact.full_error > 0).all()


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 2, 3), (2, 3, 0)])
def test_nothing_has_the_largest_magnitude_zero(shape):
    for x in (np.zeros(shape), Bounded.exact(np.zeros(shape), FLOAT32)):
        largest = largest_magnitude(x, (1, 2))
        assert largest.shape == (shape[0], 1, 1)
        assert (np.asarray(getattr(largest, "value", largest)) == 0).all()


def test_powers_of_two_are_floors_of_logarithms_within_the_range():
    largest = np.array([1.0, 1.999, 2.0, 6.0, 0.0, 2.0**-140, 3e38])
    np.testing.assert_array_equal(power_of_two(largest, 2, E8M0), [0.25, 0.25, 0.5, 1.0, 0.0, 2.0**-127, 2.0**125])
    bound = power_of_two(Bounded(np.array([1.9999999, 1.5]), np.array([1e-6, 1e-6]), FLOAT32), 0, E8M0)
    np.testing.assert_array_equal(bound.value, [1, 1])
    np.testing.assert_array_equal(bound.full_error, [1, 0])


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_what_does_not_saturate_is_what_ml_dtypes_makes_of_it(name):
    form = CODE_FORMATS[name]
    edge = form.largest * np.array([1.0, 1.03, 1.0357142857142858, 1.04, 1.0714285714285714, 1.072, 1.2, 2.0])
    x = np.float32(np.concatenate([edge, -edge, np.nextafter(edge, np.inf, dtype=np.float32)]))
    want = x.astype(name).astype(np.float64)
    np.testing.assert_array_equal(special(x.astype(np.float64), form.nearest(x.astype(np.float64)), form), want)
    bound = Bounded(x.astype(np.float64), np.full(x.shape, 0.5), FLOAT32)
    got = special(bound, quantised(bound, form), form)
    np.testing.assert_array_equal(got.value, want)
    limit = 464.0 if name == "float8_e4m3fn" else 61440.0
    np.testing.assert_array_equal(got.full_error == np.inf, np.abs(np.abs(x) - limit) <= 0.5)
    np.testing.assert_array_equal(special(np.array([1e9]), np.array([127.0]), CODE_FORMATS["int8"]), [127])


def test_steps_are_told_from_other_bounds():
    bound = Bounded(np.ones(2), np.full(2, 1e-3), FLOAT32)
    assert expected(bound, "float64").wide is None
    assert isinstance(quantised(bound, CODE_FORMATS["int8"]), Stepped)
