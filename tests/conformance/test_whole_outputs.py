"""Outputs that are integers, bools or single numbers: what is taken for one, and how wrong ones are told."""

import numpy as np
import pytest

from conformance.cases import parse_case
from conformance.certify import Request
from conformance.examine import Examiner
from conformance.isolation.sandbox import InProcess
from conformance.judge import settled, worst_element
from conformance.replay import replay
from oracle.readings import Expected

GATE = "moe_topk_gating float32 l=4 x=3 c=1 k=1 logits=normal(0)"
CAPACITY = "expert_capacity float32 tokens=10 experts=4"
DEPTHS = "mixture_of_depths float32 b=1 l=4 d=2 f=2 capacity=2 hidden=normal(0) router=normal(1) w_in=normal(2) w_out=normal(3)"
VARIATION = "load_balance_cv float32 x=3 loads=counts(0)"

KERNELS = '''
import numpy as np
import torch
from implementations.numpy.routing import route_by_sort
from implementations.numpy.experts import mix_depths


def gate_int32(logits, k):
    indices, weights = route_by_sort(logits, k)
    return indices.astype(np.int32), weights

def gate_int16(logits, k):
    indices, weights = route_by_sort(logits, k)
    return indices.astype(np.int16), weights

def gate_floats(logits, k):
    indices, weights = route_by_sort(logits, k)
    return indices.astype(np.float32), weights

def gate_next(logits, k):
    indices, weights = route_by_sort(logits, k)
    return (indices + 1) % logits.shape[1], weights

def capacity_plain(*, tokens, experts): return -(-tokens // experts)
def capacity_numpy(*, tokens, experts): return np.int32(-(-tokens // experts))
def capacity_float(*, tokens, experts): return float(-(-tokens // experts))
def capacity_true(*, tokens, experts): return True
def capacity_tensor(*, tokens, experts): return torch.tensor(-(-tokens // experts))
def capacity_huge(*, tokens, experts): return 2**70

def variation(loads):
    return loads.std() / loads.mean()

def depths(hidden, router, w_in, w_out, *, capacity):
    return mix_depths(hidden, router, w_in, w_out, capacity=capacity)

def depths_as_ints(hidden, router, w_in, w_out, *, capacity):
    out, chosen = mix_depths(hidden, router, w_in, w_out, capacity=capacity)
    return out, chosen.astype(np.int64)
'''


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    path = tmp_path_factory.mktemp("kernels") / "whole.py"
    path.write_text(KERNELS)
    return path


def finding(kernels, function, line, backend="numpy"):
    with InProcess() as sandbox:
        case = parse_case(line)
        [implementation] = sandbox.load(f"{kernels}:{function}", method=case.method, backend=backend)
        return Examiner(implementation, "float32", sandbox).examine(case).finding


@pytest.mark.parametrize(
    ("function", "line", "backend"),
    [
        ("gate_int32", GATE, "numpy"),
        ("capacity_plain", CAPACITY, "numpy"),
        ("capacity_numpy", CAPACITY, "numpy"),
        ("capacity_plain", CAPACITY, "torch"),
        ("capacity_tensor", CAPACITY, "torch"),
        ("variation", VARIATION, "numpy"),
        ("depths", DEPTHS, "numpy"),
    ],
)
def test_what_is_taken_for_an_output(kernels, function, line, backend):
    assert finding(kernels, function, line, backend) is None


@pytest.mark.parametrize(
    ("function", "line", "backend", "kind", "words"),
    [
        ("gate_int16", GATE, "numpy", "dtype", "indices.dtype=int16, but should be int32 or int64"),
        ("gate_floats", GATE, "numpy", "dtype", "indices.dtype=float32, but should be int32 or int64"),
        ("gate_next", GATE, "numpy", "wrong-value", "but should be"),
        ("capacity_float", CAPACITY, "numpy", "type", "capacity is a builtins.float"),
        ("capacity_true", CAPACITY, "numpy", "type", "capacity is a builtins.bool"),
        ("capacity_tensor", CAPACITY, "numpy", "type", "capacity is a torch.Tensor"),
        ("capacity_huge", CAPACITY, "torch", "type", "capacity is a builtins.int"),
        ("depths_as_ints", DEPTHS, "numpy", "dtype", "chosen.dtype=int64, but should be bool"),
    ],
)
def test_what_is_no_such_output_is_told(kernels, function, line, backend, kind, words):
    found = finding(kernels, function, line, backend)
    assert found is not None and found.kind == kind
    assert words in found.message


def test_an_integer_is_right_or_wrong():
    case = parse_case(CAPACITY)
    found = worst_element(case, "capacity", np.array(4), Expected(np.array(3), np.zeros(())), np.array(np.inf), 1)
    assert found.message == "capacity is 4, but should be 3; 1 of 1 elements are wrong"


def test_a_case_with_integers_replays_from_its_line(kernels):
    judgement, _ = replay(f"target={kernels}:gate_next backend=numpy {GATE}", None, Request(isolated=False))
    assert judgement.finding is not None and judgement.finding.where.startswith("indices")


def test_a_wrong_choice_is_held_against_the_exact_one_and_a_right_one_is_followed(kernels):
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{kernels}:gate_int32", method="moe_topk_gating", backend="numpy")
        examiner = Examiner(implementation, "float32", sandbox)
        wanted = examiner.wanted(parse_case(GATE))
    indices = wanted[0].value
    given = settled([(indices + 1) % 3, np.ones((4, 1), np.float32)], wanted)
    np.testing.assert_array_equal(given[0].value, indices)
    assert all(one.shown is None for one in given)
