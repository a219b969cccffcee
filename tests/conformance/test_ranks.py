"""Implementations that run on several processes: each gets the tokens that it holds, and what goes wrong on one of them is told."""

import os
import signal
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist

from conformance.cases import parse_case
from conformance.errors import UsageError
from conformance.hunting.hunt import Effort, Hunt
from conformance.isolation.sandbox import Sandbox
from conformance.parallel.driver import RankDriver, RankError, RanksWait
from conformance.registry import describe
from oracle import METHODS
from oracle.parallel import token_shares

RING = METHODS["ring_attention"]


def arrays(length=11, order=(0, 1, 2, 3)):
    made = torch.arange(2 * 3 * length * 4, dtype=torch.float32).reshape(2, 3, length, 4)
    return [(made + shift).permute(order).contiguous() for shift in (0, 1000, 2000)]


def own_queries(q, k, v, *, group=None, zigzag=False):
    return q.clone()


def rank_of_tokens(q, k, v, *, rank, world_size, zigzag=False):
    return torch.full_like(q, rank + world_size / 10)


def sum_of_keys(q, k, v, *, process_group):
    total = k.sum(dim=2, keepdim=True)
    dist.all_reduce(total, group=process_group)
    return total.expand_as(q).clone()


def writes_to_keys(q, k, v, *, group):
    if dist.get_rank(group) == 1:
        k += 1
    return q.clone()


def refuses(q, k, v, *, group):
    if dist.get_rank(group) == 1:
        raise NotImplementedError("no grouped heads")
    dist.barrier(group=group)
    return q


def is_killed(q, k, v, *, group):
    if dist.get_rank(group) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier(group=group)
    return q


def waits_for_ever(q, k, v, *, group):
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    dist.recv(torch.empty(1), (rank - 1) % ranks, group=group)
    dist.send(torch.ones(1), (rank + 1) % ranks, group=group)
    return q


@pytest.mark.parametrize("zigzag", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("length", [0, 1, 5, 8, 23])
def test_every_token_is_held_once_and_shares_are_even(length, world_size, zigzag):
    shares = token_shares(length, world_size, zigzag)
    assert sorted(np.concatenate(shares)) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1 + zigzag
    assert all((np.diff(share) > 0).all() for share in shares)


def test_zigzag_gives_each_process_a_chunk_from_either_end():
    assert [list(share) for share in token_shares(8, 2, zigzag=True)] == [[0, 1, 6, 7], [2, 3, 4, 5]]


@pytest.mark.parametrize("zigzag", [False, True])
@pytest.mark.parametrize(("layout", "order"), [(None, (0, 1, 2, 3)), ("b l h d", (0, 2, 1, 3))])
def test_what_the_processes_return_is_put_together_in_the_order_of_the_tokens(zigzag, layout, order):
    q, k, v = arrays(order=order)
    same, ranks = RankDriver(own_queries, "own", RING, layout), RankDriver(rank_of_tokens, "rank", RING, layout)
    for world_size in (1, 3, 4):
        assert torch.equal(same(q, k, v, world_size=world_size, zigzag=zigzag), q)
        held = ranks(q, k, v, world_size=world_size, zigzag=zigzag).movedim(order.index(2), 0)
        for rank, share in enumerate(token_shares(11, world_size, zigzag)):
            assert (held[share] == rank + world_size / 10).all()


def test_the_processes_can_talk_to_each_other_whatever_the_layout():
    q, k, v = arrays()
    expanded = k[:, :1].expand_as(k)
    out = RankDriver(sum_of_keys, "sum", RING)(q, expanded, v[..., ::2], world_size=3)
    assert torch.equal(out, expanded.sum(dim=2, keepdim=True).expand_as(q))


def test_what_a_process_writes_to_its_arguments_is_seen_in_those_of_the_call():
    q, k, v = arrays()
    before = k.clone()
    RankDriver(writes_to_keys, "writes", RING)(q, k, v, world_size=2)
    assert torch.equal(k[:, :, :5], before[:, :, :5])
    assert torch.equal(k[:, :, 5:], before[:, :, 5:] + 1)


def test_an_exception_keeps_its_type_and_says_where_it_was_raised():
    with pytest.raises(NotImplementedError, match=r"no grouped heads \(rank 1 of 3\)"):
        RankDriver(refuses, "refuses", RING)(*arrays(), world_size=3)


def test_a_process_that_is_killed_is_named_and_the_next_call_has_new_ones():
    driver = RankDriver(is_killed, "killed", RING)
    for _ in range(2):
        with pytest.raises(RankError, match="rank 2 of 4 was killed by SIGKILL"):
            driver(*arrays(), world_size=4)
    assert torch.equal(driver(*arrays(), world_size=2), arrays()[0])


def test_processes_that_wait_for_each_other_are_not_waited_for():
    began = time.monotonic()
    with pytest.raises(RanksWait, match="of 2 processes, rank 0, 1 waits for what does not come") as raised:
        RankDriver(waits_for_ever, "waits", RING)(*arrays(), world_size=2)
    assert raised.value.kind == "hang"
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda q, k, v, *, group: q[:, :, :1], r"out of rank 0 of 2 has the shape \(2, 3, 1, 4\), but should have 5 on axis 2"),
        (lambda q, k, v, *, group: None, "out of rank 0 of 2 is NoneType, but should be a tensor"),
        (lambda q, k, v, *, group: q.double() if dist.get_rank(group) else q, "out of rank 1 of 2 is torch.float64"),
    ],
)
def test_an_output_that_does_not_fit_is_named(returned, words):
    with pytest.raises(RankError, match=words):
        RankDriver(returned, "returned", RING)(*arrays(), world_size=2)


def test_a_function_that_asks_for_its_group_is_called_on_each_process():
    found = describe(own_queries, method="ring_attention", backend="torch", name="own", target="file.py:own")
    assert found.tunables["world_size"].choices == (1, 2, 3, 4)
    assert found.tunables["zigzag"].choices == (0, 1)
    assert "each of 1 to 4 processes" in found.notes[0]
    with pytest.raises(UsageError, match="takes the backend torch"):
        describe(own_queries, method="ring_attention", backend="numpy", name="own", target="file.py:own")


def test_a_function_of_all_tokens_is_called_once():
    found = describe(lambda q, k, v, *, world_size=2: q, method="ring_attention", backend="numpy", name="whole", target="file.py:whole")
    assert found.tunables["world_size"].choices == (1, 2, 3, 4)
    assert found.notes == []


def test_a_layout_and_a_restriction_declared_for_a_hunt_reach_the_processes_and_what_is_refused_is_not_tried_again():
    with Sandbox() as sandbox:
        [found] = sandbox.load("tests/conformance/rank_kernels.py:gathered", method="ring_attention", backend="torch")
        declared = found.declaring(layout="b l h d", restrictions={"l % 24 == 0": "shares of one length"})
        grouped = parse_case("ring_attention float32 b=1 h=2 g=1 l=24 s=24 d=2 e=2 q=normal(0) k=normal(1) v=normal(2) world_size=2")
        result = Hunt(declared, "float32", sandbox, Effort(examples=20, diagnose=False), remembered=[grouped]).run()
    assert result.verdict != "refuted", result.findings
    assert "it refuses grouped heads" in result.implementation.restrictions["h == g"]
