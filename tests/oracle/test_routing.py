"""Routing, experts and decoding: the meaning of their specifications, from definitions written out, and the errors of misuse."""

from math import ceil

import numpy as np
import pytest

from conformance.judge import compare, settled
from oracle import METHODS, OptionError, ShapeError
from oracle.experts import kept_assignments
from oracle.readings import budget, enclosure, expected
from oracle.readings.balls import midpoints
from oracle.readings.contract import CONTRACTS

GATE, LOSS, VARIATION = METHODS["moe_topk_gating"], METHODS["switch_load_balance_loss"], METHODS["load_balance_cv"]
ACCEPT, RESIDUAL, SAMPLE = (METHODS[f"speculative_{name}"] for name in ("accept", "residual", "sampling"))


def judged(method, arguments, outputs, dtype="float32"):
    bounds = budget(method, arguments, CONTRACTS[dtype])
    wanted = [expected(bound, dtype) for bound in bounds]
    given = settled(outputs, wanted)
    return all(compare(np.asarray(got), want)[1].all() for got, want in zip(outputs, given, strict=True))


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("groups", [1, 4])
def test_routing_is_as_it_is_written_down(scoring, groups):
    rng = np.random.default_rng(1)
    logits, correction, k, part = rng.normal(size=(9, 12)), rng.normal(size=12), 3, 2 if groups > 1 else 1
    indices, weights = GATE(logits, k, scoring=scoring, correction=correction, groups=groups, top_groups=part)
    for row, chosen, own in zip(logits, indices, weights, strict=True):
        s = np.exp(row) / np.exp(row).sum() if scoring == "softmax" else 1 / (1 + np.exp(-row))
        b = s + correction
        size = 12 // groups
        best = sorted(range(groups), key=lambda g: -sum(sorted(b[g * size : (g + 1) * size])[-2:]))[:part]
        order = sorted((e for e in range(12) if e // size in best), key=lambda e: -b[e])[:k]
        assert chosen.tolist() == order
        np.testing.assert_allclose(own, s[order] / s[order].sum(), rtol=1e-12)


def test_equal_logits_are_an_exact_tie_however_uncertain_the_softmax_is():
    logits = np.array([[0.3, 1.7, 1.7, 0.3]], np.float32)
    arguments = {"logits": logits, "k": 2}
    indices, weights = GATE(logits, 2)
    assert indices.tolist() == [[1, 2]]
    weights = weights.astype(np.float32)
    assert judged(GATE, arguments, [indices, weights])
    assert not judged(GATE, arguments, [indices[:, ::-1].copy(), weights])
    assert not judged(GATE, {**arguments, "k": 3}, [np.array([[1, 2, 3]]), GATE(logits, 3)[1].astype(np.float32)])


@pytest.mark.parametrize("groups", [{}, {"groups": 2, "top_groups": 1}])
def test_exact_ties_may_fall_either_way_where_that_is_declared(groups):
    logits = np.array([[1.7, 0.3, 1.7, 0.3]], np.float32)
    arguments = {"logits": logits, "k": 2, "ties": "any", **groups}
    first, weights = GATE(**arguments)
    other = np.array([[2, 3]]) if groups else first[:, ::-1].copy()
    weights = weights.astype(np.float32)
    assert judged(GATE, arguments, [first, weights]) and judged(GATE, arguments, [other, weights])
    assert not judged(GATE, {**arguments, "ties": "lower-index"}, [other, weights])
    assert not judged(GATE, arguments, [np.array([[1, 3]]), weights])


def test_a_near_tie_may_fall_either_way_with_the_weights_that_belong_to_it():
    close = np.float32(1.7) + np.float32(2**-23)
    logits = np.array([[0.3, 1.7, close, 0.3]], np.float32)
    indices, weights = GATE(logits, 2)
    assert indices.tolist() == [[2, 1]]
    other = weights[:, ::-1].astype(np.float32)
    assert judged(GATE, {"logits": logits, "k": 2}, [np.array([[1, 2]], np.int32), other])
    assert not judged(GATE, {"logits": logits, "k": 2}, [np.array([[1, 2]]), other + np.float32(1e-3)])
    assert not judged(GATE, {"logits": logits, "k": 2}, [np.array([[1, 0]]), other])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"k": 5}, ShapeError, "no more experts"),
        ({"k": 0}, OptionError, "k=0"),
        ({"groups": 3}, ShapeError, "equal size"),
        ({"groups": 2, "top_groups": 3}, ShapeError, "no more groups"),
        ({"k": 3, "groups": 2, "top_groups": 1}, ShapeError, "hold as many"),
        ({"logits": np.array([[0.0, np.nan, 0.0, 0.0]])}, OptionError, "finite"),
        ({"logits": np.array([[0.0, np.inf, 0.0, 0.0]])}, OptionError, "finite"),
    ],
)
def test_what_cannot_be_routed_is_told(changes, error, words):
    arguments = {"logits": np.zeros((1, 4)), "k": 2, **changes}
    with pytest.raises(error, match=words):
        GATE(**arguments)
    from implementations.numpy.routing import route_by_sort

    with pytest.raises(ValueError):
        route_by_sort(**arguments)


def test_k_may_be_given_by_position_but_not_twice():
    np.testing.assert_array_equal(GATE(np.eye(3), 1)[0][:, 0], [0, 1, 2])
    with pytest.raises(OptionError, match="twice"):
        GATE(np.eye(3), 1, k=1)


def test_an_even_router_has_the_loss_one_and_no_variation():
    p = np.full((8, 4), 0.25)
    indices = np.array([[t % 4, (t + 1) % 4] for t in range(8)])
    assert LOSS(p, indices) == 1.0
    assert LOSS(p, indices, fraction="of-tokens") == 2.0
    assert LOSS(np.eye(4)[[0] * 8], np.zeros((8, 1), int)) == 4.0
    assert VARIATION(np.array([3.0, 3.0, 3.0])) == 0 and VARIATION(np.zeros(4)) == 0
    np.testing.assert_allclose(VARIATION(np.array([1.0, 2.0, 6.0])), np.std([1, 2, 6]) / 3, rtol=1e-14)
    [ball] = enclosure(VARIATION, {"loads": np.array([1.0, 2.0, 6.0])})
    np.testing.assert_allclose(midpoints(np.asarray(ball, dtype=object)), np.std([1, 2, 6]) / 3, rtol=1e-14)


def test_capacities_are_rounded_from_the_exact_share():
    capacity = METHODS["expert_capacity"]
    for tokens, experts, k, factor in ((10, 4, 1, 1.25), (7, 3, 2, 1.0), (64, 8, 2, 1.5), (0, 4, 1, 1.0)):
        assert capacity(tokens=tokens, experts=experts, k=k, capacity_factor=factor) == ceil(tokens * k * factor / experts)
    assert capacity(tokens=10, experts=4, rounding="down") == 2 and capacity(tokens=1, experts=4, min_capacity=4) == 4
    with pytest.raises(OptionError, match="experts"):
        capacity(tokens=1, experts=0)


def test_places_go_in_the_order_of_tokens():
    indices = np.array([[0, 1], [0, 1], [1, 0]])
    assert kept_assignments(indices, 2, 2, "token").tolist() == [[True, True], [True, True], [False, False]]
    assert kept_assignments(indices, 2, 2, "choice").tolist() == [[True, True], [True, False], [True, False]]
    assert not kept_assignments(indices, 2, 0, "token").any()


def test_a_layer_without_room_leaves_the_shared_expert():
    rng = np.random.default_rng(3)
    x, w_in, w_out, a, b = (rng.normal(size=size) for size in ((5, 3), (2, 3, 4), (2, 4, 3), (3, 4), (4, 3)))
    layer = METHODS["moe_layer"]
    indices, weights = rng.integers(0, 2, (5, 1)), rng.random((5, 1))
    shared = layer(x, indices, weights, w_in, w_out, capacity=0, shared_in=a, shared_out=b)
    np.testing.assert_allclose(shared, ((z := x @ a) / (1 + np.exp(-z))) @ b, rtol=1e-12)
    np.testing.assert_array_equal(layer(x, indices, weights, w_in, w_out, capacity=0), 0)
    with pytest.raises(ShapeError, match="both its matrices"):
        layer(x, indices, weights, w_in, w_out, shared_in=a)
    with pytest.raises(OptionError, match="indices"):
        layer(x, indices + 2, weights, w_in, w_out)
    with pytest.raises(OptionError, match="capacity"):
        layer(x, indices, weights, w_in, w_out, capacity=-1)


def test_depths_need_one_of_two_options():
    depths, x = METHODS["mixture_of_depths"], np.ones((1, 3, 2))
    for options in ({}, {"capacity": 1, "threshold": 0.0}):
        with pytest.raises(ShapeError, match="either by number or by a threshold"):
            depths(x, np.ones(2), np.ones((2, 2)), np.ones((2, 2)), **options)
    assert depths(x, np.ones(2), np.ones((2, 2)), np.ones((2, 2)), capacity=2)[1].tolist() == [[True, True, False]]
    assert not depths(x, np.ones(2), np.ones((2, 2)), np.ones((2, 2)), threshold=2.0)[1].any()


def drafts(u, p=0.25, q=0.5):
    """One sequence whose drafted tokens 0 have the probabilities p and q."""
    rows = np.array([[p, 1 - p]] * (len(u) + 1)), np.array([[q, 1 - q]] * len(u))
    return {"p": rows[0][None], "q": rows[1][None], "draft": np.zeros((1, len(u)), int), "u": np.array([u])}


def test_acceptance_of_exact_and_of_near_ties():
    assert ACCEPT(**drafts([0.5])).tolist() == [1] and ACCEPT(**drafts([0.5]), ties="rejected").tolist() == [0]
    assert not judged(ACCEPT, drafts([0.5]), [np.array([0])])
    near = drafts([np.float64(np.float32(0.3) / np.float32(0.7))], np.float64(np.float32(0.3)), np.float64(np.float32(0.7)))
    assert judged(ACCEPT, near, [np.array([0])]) and judged(ACCEPT, near, [np.array([1])])
    assert not judged(ACCEPT, near, [np.array([2])]) and not judged(ACCEPT, near, [np.array([-1])])
    assert ACCEPT(**drafts([0.1, 0.9, 0.1])).tolist() == [1]


def test_a_residual_of_equal_models_is_the_target():
    p = np.array([[0.25, 0.75]])
    np.testing.assert_array_equal(RESIDUAL(p, p), p)
    np.testing.assert_array_equal(RESIDUAL(p, p, nothing_left="zeros"), 0)
    np.testing.assert_array_equal(RESIDUAL(p, p[:, ::-1]), [[0, 1]])
    with pytest.raises(OptionError, match="add up to 1"):
        RESIDUAL(p, p / 2)


def test_a_sampled_token_has_a_probability():
    given = drafts([0.9]) | {"u_sample": np.array([0.0])}
    assert SAMPLE(**given).tolist() == [[1, -1]]
    assert not judged(SAMPLE, given, [np.array([[0, -1]])])
    assert not judged(SAMPLE, given, [np.array([[1, 0]])])
    accepted = drafts([0.1]) | {"u_sample": np.array([0.25])}
    for last in (0, 1):  # exactly at the step between them
        assert judged(SAMPLE, accepted, [np.array([[0, last]])])


@pytest.mark.parametrize(("name", "wrong"), [("draft", np.array([[2]])), ("draft", np.array([[-1]])), ("u", np.array([[1.0]]))])
def test_drafts_and_numbers_out_of_range_are_told(name, wrong):
    with pytest.raises(OptionError, match=name):
        ACCEPT(**{**drafts([0.5]), name: wrong})


def test_several_tokens_are_as_many_cross_entropies():
    rng = np.random.default_rng(4)
    hidden, heads, unembedding = (rng.normal(size=size) for size in ((2, 5, 3), (3, 3, 3), (3, 4)))
    tokens = rng.integers(0, 4, (2, 5))
    logits, loss = METHODS["multi_token_prediction"](hidden, heads, unembedding, tokens)
    total, pairs = 0.0, 0
    for b, i, t in np.ndindex(2, 3, 5):
        row = hidden[b, t] @ heads[i] @ unembedding
        np.testing.assert_allclose(logits[b, i, t], row, rtol=1e-12)
        if t + i + 1 < 5:
            total, pairs = total - np.log(np.exp(row) / np.exp(row).sum())[tokens[b, t + i + 1]], pairs + 1
    np.testing.assert_allclose(loss, total, rtol=1e-12)
    mean = METHODS["multi_token_prediction"](hidden, heads, unembedding, tokens, reduction="mean")[1]
    np.testing.assert_allclose(mean, total / pairs, rtol=1e-12)
