"""Discrete decisions: which choices are legitimate, held against all subsets, and what is evaluated for them."""

import itertools

import numpy as np
import pytest

from oracle.readings.balls import balls, working_precision
from oracle.readings.bounded import Bounded
from oracle.readings.contract import CONTRACTS
from oracle.readings.decisions import ALTERNATIVES, Choice, Undecided, decide, equal_weights

FLOAT32 = CONTRACTS["float32"]


def members_of(scores, count, candidates=True, exact=None):
    """What `decide` chooses, as the output itself."""
    return decide(scores, count, np.asarray(candidates), lambda choice: choice.members, exact)


def outcomes(values, errors, count, candidates=True):
    """Every choice that `decide` evaluates for one row, and the wide one's open candidates, if there is one."""
    seen = []

    def then(choice):
        seen.append(choice)
        return Bounded(choice.members.astype(float), np.zeros(choice.members.shape), FLOAT32)

    output = decide(Bounded(values, errors, FLOAT32), count, np.asarray(candidates), then)
    if isinstance(output, Undecided):
        for number in range(len(output.worlds)):
            output.other(number)
    sets = [frozenset(np.flatnonzero(choice.members)) for choice in seen if choice.open is None]
    opened = [frozenset(np.flatnonzero(choice.open)) for choice in seen if choice.open is not None]
    assert len(set(sets)) == len(sets)
    return sets, opened


def legitimate(values, errors, count, candidates):
    """By definition: some scores within their bounds have these as their largest; exact equal ones go by index."""
    listed = [i for i in range(len(values)) if candidates[i]]

    def must(i, j):
        tie = errors[i] == errors[j] == 0 and values[i] == values[j] and i < j
        return values[i] - errors[i] > values[j] + errors[j] or tie

    sets = (set(one) for one in itertools.combinations(listed, min(count, len(listed))))
    return {frozenset(one) for one in sets if not any(must(i, j) for i in listed if i not in one for j in one)}


@pytest.mark.parametrize("seed", range(300))
def test_the_choices_are_those_that_some_scores_within_the_bounds_lead_to(seed):
    rng = np.random.default_rng(seed)
    size, count = int(rng.integers(1, 7)), int(rng.integers(0, 5))
    values = rng.integers(0, 4, size) / 2.0 if seed % 2 else rng.normal(size=size)
    errors = rng.choice([0.0, 0.0, 0.25, 0.5, 0.6], size)
    candidates = rng.random(size) < 0.8
    sets, opened = outcomes(values, errors, count, candidates)
    every = legitimate(values, errors, count, candidates)
    order = sorted(np.flatnonzero(candidates), key=lambda i: (-values[i], i))
    assert sets[0] == frozenset(order[:count])
    if opened:
        assert len(every) > ALTERNATIVES + 1
        assert opened == [frozenset.union(*every) - frozenset.intersection(*every)]
    else:
        assert set(sets) == every


@pytest.mark.parametrize("seed", range(40))
def test_what_a_machine_chooses_is_among_them(seed):
    rng = np.random.default_rng(seed)
    values, errors = rng.normal(size=40), np.full(40, 0.01)
    sets, opened = outcomes(values, errors, 7)
    for _ in range(60):
        computed = values + errors * rng.uniform(-1, 1, 40)
        chosen = frozenset(np.argsort(-computed, kind="stable")[:7])
        assert chosen in sets or any(chosen ^ sets[0] <= free for free in opened)


def test_many_candidates_far_apart_are_no_near_ties():
    values = np.random.default_rng(0).permutation(3000).astype(float)
    sets, opened = outcomes(values, np.full(3000, 0.4), 1000)
    assert len(sets) == 1 and not opened
    sets, opened = outcomes(values, np.where(values >= 1998, 0.6, 0.0), 1000)
    assert len(sets) > 1 and not opened


def test_too_many_choices_are_opened_together():
    sets, opened = outcomes(np.ones(3000), np.full(3000, 0.1), 1000)
    assert len(sets) == 1 and opened == [frozenset(range(3000))]
    sets, opened = outcomes(np.ones(3000), np.zeros(3000), 1000)
    assert sets == [frozenset(range(1000))] and not opened


def test_unbounded_scores_leave_everything_open():
    sets, opened = outcomes(np.array([1.0, 2.0, 3.0]), np.array([np.inf, 0.0, np.inf]), 1)
    assert set(sets) == {frozenset({0}), frozenset({1}), frozenset({2})} and not opened


def test_rows_are_independent_and_have_counts_of_their_own():
    values = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    got = members_of(values, np.array([2, 1, 2]), np.array([True, True, True]))
    np.testing.assert_array_equal(got, [[False, True, True], [True, False, False], [True, True, False]])


def test_an_exact_row_has_one_choice_whatever_its_bounds_say():
    scores = Bounded(np.ones((2, 4)), np.full((2, 4), 0.1), FLOAT32)

    def then(choice: Choice) -> Bounded:
        return Bounded(choice.members.astype(float), np.zeros((2, 4)), FLOAT32)

    output = decide(scores, 2, np.array(True), then, exact=np.array([True, False]))
    assert output.worlds.near_ties == 1
    assert not isinstance(decide(scores, 2, np.array(True), then, exact=np.array([True, True])), Undecided)


def test_other_choices_are_evaluated_once_and_only_when_asked_for():
    calls = []

    def then(choice):
        calls.append(choice)
        return Bounded(choice.members.astype(float), np.zeros(3), FLOAT32)

    output = decide(Bounded(np.array([1.0, 1.0, 0.0]), np.full(3, 0.1), FLOAT32), 1, np.array(True), then)
    assert len(calls) == 1 and len(output.worlds) == 1
    for _ in range(2):
        np.testing.assert_array_equal(output.other(0).value, [0.0, 1.0, 0.0])
    assert len(calls) == 2


def test_several_outputs_follow_from_one_choice():
    def then(choice):
        made = choice.members.astype(float)
        return tuple(Bounded(factor * made, np.zeros(3), FLOAT32) for factor in (1.0, 2.0))

    first, second = decide(Bounded(np.array([1.0, 1.0, 0.0]), np.full(3, 0.1), FLOAT32), 1, np.array(True), then)
    assert first.worlds is second.worlds
    np.testing.assert_array_equal(second.other(0).value, 2 * first.other(0).value)


def test_balls_that_cannot_be_told_apart_go_by_index():
    pytest.importorskip("flint")
    with working_precision():
        thirds = balls(np.array([1.0, 1.0, 2.0])) / balls(np.array([3.0, 3.0, 5.0]))
        scores = np.stack([thirds[0] * 3 - thirds[1] * 2, thirds[1], thirds[2], thirds[0]])
        np.testing.assert_array_equal(members_of(scores, 2), [True, False, True, False])


def test_weights_are_exact_for_a_power_of_two_of_zeros():
    def scores(number, value=0.0, error=0.0):
        row = np.where(np.arange(9) < number, value, -np.inf)
        return Bounded(row, np.where(row > -np.inf, error, 0.0), FLOAT32)

    assert [int(number) for number in range(10) if equal_weights(scores(number))] == [0, 1, 2, 4, 8]
    assert not equal_weights(scores(4, value=1.0)) and not equal_weights(scores(4, error=1e-9))
    assert not equal_weights(np.zeros(4)).any()
