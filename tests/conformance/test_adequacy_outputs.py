"""Mistakes that show in an output which an implementation leaves out do not keep a certificate from it."""

import numpy as np

from conformance.adequacy import Adequacy
from conformance.cases import parse_case
from conformance.judge import Judgement
from conformance.registry import Implementation
from oracle import METHODS
from oracle.readings import budget, expected
from oracle.readings.contract import CONTRACTS

CASE = "delta_rule float32 b=1 h=1 l=9 d=3 e=2 q=zeros(0) k=units(1) v=normal(2) beta=fractions(3)"


def learned(outputs):
    """Adequacy after one passing case, whose queries read nothing, of an implementation that returns so many outputs."""
    case = parse_case(CASE)
    adequacy = Adequacy(Implementation("any", "delta_rule", "numpy", "any:any", options=METHODS["delta_rule"].keywords))
    wanted = tuple(expected(bound, "float32") for bound in budget(METHODS["delta_rule"], case.arguments(), CONTRACTS["float32"]))
    adequacy.learn(Judgement(case, None, wanted=wanted[:outputs]))
    return adequacy


def test_a_mistake_in_the_final_state_is_exposed_by_an_implementation_that_returns_it():
    assert "final-state-without-last-token" in learned(2).ruled_out


def test_and_is_nothing_to_wait_for_where_the_state_is_left_out():
    adequacy = learned(1)
    assert "final-state-without-last-token" not in [*adequacy.ruled_out, *adequacy.left]
    assert "read-before-update" in adequacy.left  # an output of zeros hides it, another case will not
    adequacy.look_ahead([parse_case(CASE.replace("q=zeros", "q=normal"))])
    assert "final-state-without-last-token" not in adequacy.left


def test_the_two_cases_differ_in_nothing_else():
    assert np.any(parse_case(CASE).arguments()["v"])
    assert set(learned(1).left) < {*learned(2).left, *learned(2).ruled_out}
