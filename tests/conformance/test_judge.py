"""The judge: nothing passes by being incomparable."""

import numpy as np
import pytest

from conformance.judge import compare
from oracle.readings import Expected

WANT = Expected(np.array([1.0, 2.0, 0.0, -np.inf]), np.array([0.1, 0.1, 0.0, 0.0]))


def agrees(*got, want=WANT):
    return compare(np.array(got, dtype=np.float32), want)[1].tolist()


def test_values_within_the_budget_agree():
    assert agrees(1.05, 1.95, 0.0, -np.inf) == [True, True, True, True]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1.2])
def test_anything_else_is_rejected(wrong):
    assert agrees(wrong, 2.0, 0.0, -np.inf) == [False, True, True, True]


def test_where_the_budget_is_zero_only_the_exact_value_agrees():
    assert agrees(1.0, 2.0, 1e-30, -np.inf) == [True, True, False, True]
    assert agrees(1.0, 2.0, -0.0, -np.inf) == [True, True, True, True]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e38, 0.0])
def test_minus_infinity_is_matched_by_itself_alone(wrong):
    assert agrees(1.0, 2.0, 0.0, wrong)[3] is False


def test_an_expected_nan_is_matched_by_nan_alone():
    want = Expected(np.array([np.nan]), np.array([np.nan]))
    assert agrees(np.nan, want=want) == [True]
    assert agrees(0.0, want=want) == [False]


def test_an_unlimited_budget_agrees_with_anything():
    assert agrees(np.nan, want=Expected(np.array([1.0]), np.array([np.inf]))) == [True]


def test_the_ratio_of_a_nan_is_infinite():
    assert compare(np.array([np.nan, 2, 0, -np.inf]), WANT)[0][0] == np.inf
