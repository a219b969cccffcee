"""Judging an output whose rows depend on a discrete decision: right for one legitimate choice, row by row."""

from pathlib import Path

import numpy as np
import pytest

from conformance.adequacy import leaves_budget
from conformance.hunting.hunt import Effort, Hunt
from conformance.isolation.sandbox import InProcess
from conformance.judge import compare, settled
from oracle.readings import expected
from oracle.readings.bounded import Bounded
from oracle.readings.contract import CONTRACTS
from oracle.readings.decisions import Undecided, decide

CORPUS = Path(__file__).parent.parent / "mutants"
VALUES = np.array([10.0, 20.0, 30.0, 40.0])


def wanted_of(scores, error=0.1, count=1, rows=2):
    """The values of the chosen candidates, twice each, for rows of scores: an output of ``l e``, decided for each ``l``."""
    evaluated = []

    def then(choice):
        evaluated.append(choice)
        total = choice.members @ VALUES
        error = np.where(choice.open.any(axis=-1), VALUES.sum(), 0.5) if choice.open is not None else np.full(len(total), 0.5)
        return Bounded(np.stack([total, total], axis=-1), np.stack([error, error], axis=-1), CONTRACTS["float32"])

    scores = np.asarray(scores, dtype=np.float64)
    output = decide(Bounded(scores, np.full(scores.shape, error), CONTRACTS["float32"]), count, np.array(True), then)
    if isinstance(output, Undecided):
        output.set_rows(("l", "e"), ("l",), {"l": len(scores), "e": 2})
    return expected(output, "float32"), evaluated


NEAR = [[1.0, 1.05, 0.0, 0.0], [1.0, 0.0, 0.0, 1.05]]


@pytest.mark.parametrize("first", [10.0, 20.0])
@pytest.mark.parametrize("second", [10.0, 40.0])
def test_each_row_may_be_right_for_a_choice_of_its_own(first, second):
    wanted, _ = wanted_of(NEAR)
    got = np.array([[first, first + 0.4], [second - 0.4, second]], dtype=np.float32)
    ratio, agrees = compare(got, wanted)
    assert agrees.all()
    assert 0.7 < ratio.max() < 0.9


@pytest.mark.parametrize("row", [[10.0, 20.0], [30.0, 30.0], [15.0, 15.0], [np.nan, 20.0], [np.inf, np.inf], [30.0, 10.0]])
def test_what_no_single_choice_explains_is_wrong(row):
    wanted, _ = wanted_of(NEAR)
    assert compare(np.array([row, [40.0, 40.0]], dtype=np.float32), wanted)[1].tolist() != [[True, True], [True, True]]
    assert compare(np.array([row, [40.0, 40.0]], dtype=np.float32), wanted)[1][1].all()


def test_a_choice_that_no_near_tie_allows_is_wrong():
    wanted, _ = wanted_of([[1.0, 1.5, 0.0, 0.0], [1.0, 0.0, 0.0, 1.05]])
    assert not compare(np.array([[10.0, 10.0], [40.0, 40.0]], dtype=np.float32), wanted)[1][0].any()


def test_other_choices_are_evaluated_only_where_the_exact_one_does_not_fit():
    wanted, evaluated = wanted_of(NEAR)
    compare(np.array([[20.0, 20.0], [40.0, 40.0]], dtype=np.float32), wanted)
    assert len(evaluated) == 1
    for _ in range(3):
        compare(np.array([[10.0, 10.0], [40.0, 40.0]], dtype=np.float32), wanted)
    assert len(evaluated) == 2


def test_a_finding_tells_of_the_choice_that_comes_nearest():
    wanted, _ = wanted_of(NEAR)
    [given] = settled([np.array([[12.0, 10.0], [40.0, 40.0]], dtype=np.float32)], [wanted])
    np.testing.assert_array_equal(given.value, [[10.0, 10.0], [40.0, 40.0]])
    assert given.alternatives is None and given.wide is None


def test_too_many_choices_are_judged_by_one_budget_and_the_rows_are_told():
    wanted, evaluated = wanted_of(np.ones((2, 4)))  # four candidates are evaluated each
    assert compare(np.array([[20.0, 20.0], [40.0, 40.0]], dtype=np.float32), wanted)[1].all()
    assert len(evaluated) == 4 and all(choice.open is None for choice in evaluated)
    scores = np.ones((2, 40))
    scores[1, 0] = 2.0

    def then(choice):
        error = 0.5 + (100.0 * choice.open.any(axis=-1) if choice.open is not None else np.zeros(2))
        total = choice.members @ np.arange(40.0)
        return Bounded(np.stack([total, total], -1), np.stack([error, error], -1), CONTRACTS["float32"])

    output = decide(Bounded(scores, np.full(scores.shape, 0.1), CONTRACTS["float32"]), 1, np.array(True), then)
    output.set_rows(("l", "e"), ("l",), {"l": 2, "e": 2})
    wanted = expected(output, "float32")
    assert wanted.alternatives.near_ties == 1
    [inside] = settled([np.array([[35.0, 36.0], [0.0, 0.0]], dtype=np.float32)], [wanted])
    assert inside.wide.tolist() == [[True, True], [False, False]]
    assert compare(np.array([[35.0, 36.0], [0.0, 0.0]], dtype=np.float32), wanted)[1].all()
    assert not compare(np.array([[135.0, 36.0], [0.0, 0.0]], dtype=np.float32), wanted)[1].all()
    assert not compare(np.array([[np.nan, 36.0], [0.0, 0.0]], dtype=np.float32), wanted)[1].all()


def test_all_outputs_are_judged_by_the_same_choice():
    def then(choice):
        index = np.argmax(choice.members, axis=-1).astype(float)
        return tuple(Bounded(x, np.full(2, 0.1), CONTRACTS["float32"]) for x in (index, choice.members @ VALUES))

    outputs = decide(Bounded(np.array(NEAR), np.full((2, 4), 0.1), CONTRACTS["float32"]), 1, np.array(True), then)
    for output in outputs:
        output.set_rows(("l",), ("l",), {"l": 2})
    wanted = [expected(output, "float32") for output in outputs]
    for index, chosen, right in (([0, 3], [10, 40], True), ([1, 0], [20, 10], True), ([0, 3], [20, 40], False), ([1, 0], [20, 40], False)):
        got = [np.array(index, np.float32), np.array(chosen, np.float32)]
        given = settled(got, wanted)
        assert all(compare(one, want)[1].all() for one, want in zip(got, given, strict=True)) == right
        assert leaves_budget(tuple(got), tuple(wanted)) != right


def test_query_heads_share_the_choice_of_their_group():
    output = Bounded(np.zeros((1, 4, 2, 3)), np.zeros((1, 4, 2, 3)), CONTRACTS["float32"])
    made = Undecided.of(output, None, 0)
    made.set_rows(("b", "h", "l", "e"), ("b", "g", "l"), {"b": 1, "h": 4, "g": 2, "l": 2, "e": 3})
    assert made.split == (1, 2, 2, 2, 3)
    assert made.reduced == (2, 4)


def test_a_certificate_counts_near_ties():
    with InProcess() as sandbox:
        target = f"{CORPUS}/right/numpy_native_sparse_exp2.py:kernel"
        [implementation] = sandbox.load(target, method="native_sparse_attention", backend="numpy")
        result = Hunt(implementation, "float32", sandbox, Effort(examples=12, diagnose=False)).run()
    assert result.verdict != "refuted", result.findings
    assert result.near_ties > 0
    assert result.widened <= result.near_ties
    assert result.worst_ratio < 0.5


def test_a_tie_broken_by_the_higher_index_is_refuted_where_it_is_exact():
    with InProcess() as sandbox:
        target = f"{CORPUS}/numpy_wrong/native_sparse_last_of_equals.py:kernel"
        [implementation] = sandbox.load(target, method="native_sparse_attention", backend="numpy")
        result = Hunt(implementation, "float32", sandbox, Effort(examples=60)).run()
    assert result.verdict == "refuted"
    assert "ties-to-the-higher-index" in result.findings[0][1]
