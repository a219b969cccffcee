"""Continuous batching: what a script means, token by token against whole sequences, and what is no script."""

import numpy as np
import pytest

from oracle import METHODS, OptionError, attention
from oracle.continuous_batching import read_tokens
from oracle.operations import join_operations, parse_operations, play, possible, rows
from oracle.readings import budget, enclosure, expected
from oracle.readings.contract import CONTRACTS

METHOD = METHODS["continuous_batching"]
SCRIPT = "join(0,5);grow(0,1);fork(0,1);grow(1,3);swap_out(0);join(2,2);preempt(1);finish(2);swap_in(0);resume(1);grow(0,1)"


def call(operations, heads=4, kv_heads=2, width=3, value_width=2, seed=0):
    rng = np.random.default_rng(seed)
    tokens = sum(one.number for one in parse_operations(operations) if one.verb in ("join", "grow"))
    return {
        "q": rng.standard_normal((tokens, heads, width)), "k": rng.standard_normal((tokens, kv_heads, width)),
        "v": rng.standard_normal((tokens, kv_heads, value_width)), "operations": operations,
    }  # fmt: skip


def evaluate(given, **options):
    return METHOD(given["q"], given["k"], given["v"], operations=given["operations"], **options)


def by_head(x):
    return np.swapaxes(x, 0, 1)[None]


@pytest.mark.parametrize("window", [None, 1, 3])
def test_tokens_one_by_one_give_what_the_whole_sequence_gives(window):
    """Incremental decoding: decode against parallel."""
    given = call("join(0,1)" + ";grow(0,1)" * 8)
    reach = None if window is None else (window - 1, None)
    whole = attention(*(by_head(given[name]) for name in "qkv"), causal=True, window=reach)
    np.testing.assert_allclose(by_head(evaluate(given, sliding_window=window)), whole, atol=1e-14)


def test_tokens_in_chunks_give_what_the_whole_sequence_gives():
    given = call("join(0,4);grow(0,3);grow(0,1);grow(0,5)")
    whole = attention(*(by_head(given[name]) for name in "qkv"), causal=True)
    np.testing.assert_allclose(by_head(evaluate(given)), whole, atol=1e-14)


def test_each_request_reads_its_own_history_whatever_happens_to_the_others():
    given, out = call(SCRIPT), evaluate(call(SCRIPT))
    asked = rows(SCRIPT)
    assert len(asked) == len(out)
    for row, got in zip(asked, out, strict=True):
        own = list(row.tokens)
        alone = attention(by_head(given["q"][own[-1:]]), by_head(given["k"][own]), by_head(given["v"][own]))
        np.testing.assert_allclose(got, alone[0, :, 0], atol=1e-14)


def test_what_a_fork_shares_and_what_it_does_not():
    histories = [row.tokens for row in rows("join(0,2);fork(0,1);grow(0,1);grow(1,2)") if row.step == 3]
    assert histories == [(0, 1, 2), (0, 1, 3), (0, 1, 3, 4)]


def test_nothing_is_asked_of_a_request_that_is_not_resident():
    asked = {(row.step, row.request) for row in rows("join(0,1);join(1,1);swap_out(0);preempt(1);swap_in(0);resume(1)")}
    assert asked == {(0, 0), (1, 0), (1, 1), (2, 1), (4, 0), (5, 0), (5, 1)}


def test_a_request_that_finished_may_come_again_with_nothing_left():
    assert rows("join(0,3);finish(0);join(0,1)")[-1].tokens == (3,)


def test_a_window_counts_the_token_itself():
    [row] = rows("join(0,4)")[-1:]
    assert read_tokens((row,), 4, 2).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ("join(0,2);grow(1,1)", r"operations\[1\]=grow\(1,1\), but request 1 should be resident and is absent"),
        ("join(0,2);join(0,1)", r"request 0 should be absent and is resident"),
        ("join(0,2);swap_out(0);grow(0,1)", r"request 0 should be resident and is swapped out"),
        ("join(0,2);preempt(0);swap_in(0)", r"request 0 should be swapped out and is preempted"),
        ("join(0,2);fork(0,0)", r"request 0 should be absent and is resident"),
        ("join(0,0)", r"should bring at least 1 token"),
        ("join(0)", r"operation 'join\(0\)', but should be one of join\(r,n\)"),
        ("finish(0,1)", r"should be one of"),
        ("evict(0)", r"should be one of"),
        ("", r"should be one of"),
    ],
)
def test_what_is_no_script_is_refused_with_the_operation_that_is_wrong(operations, words):
    x = np.zeros((2, 1, 1))
    with pytest.raises(OptionError, match=words):
        METHOD(x, x, x, operations=operations)


def test_operations_that_became_impossible_are_left_out():
    operations = parse_operations(SCRIPT)
    without_first_fork = possible(one for one in operations if one.verb != "fork")
    assert join_operations(without_first_fork) == "join(0,5);grow(0,1);swap_out(0);join(2,2);finish(2);swap_in(0);grow(0,1)"
    assert len(list(play(without_first_fork))) == len(without_first_fork)


def test_the_enclosure_contains_the_value_and_the_budget_an_honest_float32_kernel():
    given = call(SCRIPT, seed=3)
    value, [balls], [bound] = evaluate(given), enclosure(METHOD, given), budget(METHOD, given, CONTRACTS["float32"])
    for exact, ball in zip(value.ravel(), balls.ravel(), strict=True):
        assert abs(exact - float(ball.mid())) <= float(ball.rad()) + 1e-14
    wanted = expected(bound, "float32")
    narrow = {name: x.astype(np.float32) if name in "qkv" else x for name, x in given.items()}
    exact = expected(budget(METHOD, narrow, CONTRACTS["float32"])[0], "float32")
    k, v = (np.repeat(narrow[name], 2, axis=1) for name in "kv")
    for index, row in enumerate(rows(SCRIPT)):
        own = list(row.tokens)
        scores = np.einsum("hd,nhd->hn", narrow["q"][own[-1]], k[own]) * np.float32(3**-0.5)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out = np.einsum("hn,nhe->he", weights / weights.sum(axis=-1, keepdims=True), v[own])
        assert out.dtype == np.float32
        assert (np.abs(out - exact.value[index]) <= exact.budget[index]).all()
    assert (wanted.budget > 0).all()
