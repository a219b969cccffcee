"""Decisions that an output shows: which rankings are legitimate, held against all that scores within the bounds lead to."""

import itertools

import numpy as np
import pytest

from oracle.readings.bounded import Bounded
from oracle.readings.contract import CONTRACTS
from oracle.readings.shown import Ranking, classes, ranked

FLOAT32 = CONTRACTS["float32"]


def reachable(values, errors, alike, count):
    """Every ranking that some scores on a fine enough grid within the bounds have, equal scores for candidates that are alike."""
    kinds = sorted(set(alike))
    choices = []
    for kind in kinds:
        one = alike.index(kind)
        low, high = values[one] - errors[one], values[one] + errors[one]
        choices.append(np.arange(round(low * 8), round(high * 8) + 1) / 8)
    found = set()
    for scores in itertools.product(*choices):
        row = [scores[kinds.index(kind)] for kind in alike]
        found.add(tuple(sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]))
    return found


@pytest.mark.parametrize("seed", range(200))
def test_the_legitimate_rankings_are_those_that_some_scores_lead_to(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 5))
    count = int(rng.integers(1, size + 1))
    # All bounds lie on a grid of halves, so that a grid of eighths holds a witness of every ranking of up to four candidates.
    alike = [int(kind) for kind in rng.integers(0, size, size)]
    by_kind = {kind: (rng.integers(0, 4) / 2, rng.choice([0.0, 0.5, 1.0])) for kind in alike}
    values, errors = (np.array([by_kind[kind][index] for kind in alike]) for index in (0, 1))
    scores = Bounded(values[None], errors[None], FLOAT32)
    exact = ranked(values[None], np.array(True))[..., :count]
    decision = Ranking(scores, exact, lambda order: (order,), alike=np.array([alike]))
    every = reachable(values, errors, alike, count)
    assert tuple(exact[0]) in every
    for order in itertools.permutations(range(size), count):
        assert bool(decision.legitimate(np.array([order]))[0]) == (order in every), (values, errors, alike, order)
    assert (decision.near_ties > 0) >= (len(every) > 1)
    assert (decision.near_ties > 0) <= bool(errors.any())


@pytest.mark.parametrize("row", [[0, 0], [-1, 0], [0, 3], [2, 2**40], [-(2**31), 1]])
def test_what_is_no_ranking_is_not_legitimate(row):
    scores = Bounded(np.zeros((1, 3)), np.ones((1, 3)), FLOAT32)
    decision = Ranking(scores, np.array([[0, 1]]), lambda order: (order,))
    assert decision.legitimate(np.array([[2, 0]])).all()
    assert not decision.legitimate(np.array([row])).any()
    np.testing.assert_array_equal(decision.settled(np.array([row])), [[0, 1]])


def test_another_shape_is_held_against_the_exact_outcome():
    scores = Bounded(np.zeros((1, 3)), np.ones((1, 3)), FLOAT32)
    decision = Ranking(scores, np.array([[0, 1]]), lambda order: (order,))
    np.testing.assert_array_equal(decision.settled(np.array([[0, 1, 2]])), [[0, 1]])


def test_what_follows_is_evaluated_once_for_a_decision():
    asked = []

    def then(order):
        asked.append(order)
        return (order, Bounded(order.astype(float), np.zeros(()), FLOAT32))

    decision = Ranking(Bounded(np.zeros((2, 3)), np.ones((2, 3)), FLOAT32), np.array([[0, 1], [0, 1]]), then)
    for _ in range(3):
        decision.outputs(np.array([[2, 0], [1, 1]]))
    [order] = asked
    np.testing.assert_array_equal(order, [[2, 0], [0, 1]])


def test_classes_are_equal_where_all_inputs_are():
    first, second = np.array([[1.0, 2.0, 1.0, 1.0], [0.0, -0.0, 3.0, 0.0]]), np.array([5.0, 5.0, 6.0, 5.0])
    both = classes(first, second)
    assert [[bool(a == b) for b in row] for row in both for a in row] == [
        [bool(x[0] == y[0] and x[1] == y[1]) for y in zip(row, second, strict=True)] for row in first for x in zip(row, second, strict=True)
    ]
    assert classes(np.zeros((2, 0))).shape == (2, 0)
