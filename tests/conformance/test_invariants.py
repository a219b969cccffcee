"""Invariants: right kernels keep them, each is violated by some wrong kernel, and their tolerance contains the budget."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from conformance.cases import CaseError, parse_case
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.certificate import replay_line
from conformance.certify import Request, certify
from conformance.diagnosis.shrink import shrink
from conformance.errors import UsageError
from conformance.examine import Examiner
from conformance.hunting.search import Effort
from conformance.invariants import invariants_for
from conformance.invariants.bound import error_bounds
from conformance.invariants.drawing import invariant_cases
from conformance.isolation.sandbox import InProcess
from conformance.replay import replay
from oracle import METHODS
from oracle.readings import budget
from oracle.readings.bounded import split
from oracle.readings.contract import CONTRACTS

KERNELS = Path(__file__).with_name("violations.py")
METHODS_OF = {
    "merge_attention_states": ("right_merge", "merge_in_base_two", "parts_beyond_the_second_lost"),
    "attention_with_lse": ("right_with_lse", "lse_in_base_two"),
}

PLAIN = "attention float32 b=1 h=1 l=2 d=2 g=1 s=2 e=2 q=normal(0) k=normal(0) v=normal(0)"
VIOLATIONS = [
    ("selection", "next_key_of_long_rows"),
    ("mean", "padding_in_denominator"),
    ("convexity", "weights_add_up_to_more"),
    ("batch-independence", "keys_of_next_sequence"),
    ("head-independence", "keys_of_next_head"),
    ("row-independence", "sum_of_first_row"),
    ("batch-poison", "adds_nothing_of_other_sequences"),
    ("row-poison", "maximum_of_all_rows"),
    ("batch-of-one", "single_sequence_loses_a_key"),
    ("head-alone", "single_head_is_scaled_twice"),
    ("rows-alone", "few_queries_lose_a_key"),
    ("causal-prefix", "causal_lost_for_many_keys"),
    ("key-permutation", "last_keys_lost"),
    ("key-permutation", "parts_beyond_the_second_lost"),
    ("key-duplication", "padding_in_denominator"),
    ("key-duplication", "parts_beyond_the_second_lost"),
    ("key-split", "lse_in_base_two"),
    ("key-split", "merge_in_base_two"),
    ("logit-shift", "no_maximum_but_an_epsilon"),
    ("value-scaling", "adds_a_constant"),
    ("tunables", "loses_partial_tiles"),
    ("layout", "storage_order"),
]


def examiner_of(kernel, dtype="float32", **declared):
    sandbox = InProcess()
    method = next((method for method, kernels in METHODS_OF.items() if kernel in kernels), "attention")
    [implementation] = sandbox.load(f"{KERNELS}:{kernel}", method=method, backend="numpy")
    return Examiner(implementation.declaring(**declared), dtype, sandbox)


def findings_of(examiner, name=None, examples=600, seed=0):
    found = []
    for case in invariant_cases(examiner, examples, 60.0, seed):
        if name in (None, case.invariant) and (finding := examiner.examine(case).finding) is not None:
            found.append(finding)
    return found


@pytest.mark.parametrize(("name", "kernel"), VIOLATIONS)
def test_each_invariant_refutes_a_wrong_kernel_by_itself(name, kernel):
    examiner = examiner_of(kernel)
    found = next(filter(None, (findings_of(examiner, name, seed=seed) for seed in range(8))), [])
    assert found
    assert all(finding.kind == "invariant" and finding.message.startswith(f"{name}: ") for finding in found)


def test_every_invariant_is_among_those_shown_to_be_violated():
    declared = {invariant.name for method in METHODS for invariant in invariants_for(method)}
    assert declared == {name for name, _ in VIOLATIONS}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("kernel", ["right", "right_with_lse", "right_merge", "right_with_splits"])
def test_a_right_kernel_keeps_all_invariants(kernel, dtype):
    assert findings_of(examiner_of(kernel, dtype), examples=200, seed=1) == []


@pytest.mark.parametrize("drawn", ["l=2 s=2 mask=empty(0)[s]", "l=3 s=2"])
def test_a_prefix_has_fewer_values_to_take_the_mean_of(drawn):
    lengths, *mask = drawn.split(" mask=")
    line = f"attention float32 b=1 h=1 d=1 g=1 e=1 {lengths} causal=True q=normal(0) k=normal(0) v=normal(0)"
    case = parse_case(f"{line}{''.join(f' mask={one}' for one in mask)} invariant=causal-prefix")
    examiner = examiner_of("right_with_means", conventions={"empty_row": "mean"})
    assert examiner.examine(case).finding is None


@pytest.mark.parametrize(
    ("convention", "value", "name"),
    [("causal_alignment", "top-left", "rows-alone"), ("empty_row", "nan", "convexity"), ("head_map", "interleaved", "head-alone")],
)
def test_conventions_are_judged_as_declared(convention, value, name):
    """The kernel does not follow what is declared here, so invariants that depend on it do not hold."""
    usual, declared = examiner_of("right"), examiner_of("right", conventions={convention: value})
    assert not any(findings_of(usual, name, seed=seed) for seed in range(8))
    assert any(findings_of(declared, name, seed=seed) for seed in range(8))


@pytest.mark.parametrize("name", list(CONTRACTS))
def test_the_bound_contains_the_budget(name):
    contract, rng = CONTRACTS[name], Random(name)
    for method in ("attention", "attention_with_lse", "merge_attention_states"):
        specification = METHODS[method]
        examiner = examiner_of({"attention": "right", "attention_with_lse": "right_with_lse"}.get(method, "right_merge"))
        for index in range(24):
            case = random_case(rng, examiner.implementation, contract.output.name, STAGES[index % 2]).without_garbage()
            arguments = case.arguments() | {convention: rng.choice(values) for convention, values in specification.conventions.items()}
            for bounded, extent in zip(budget(specification, arguments, contract), error_bounds(method, arguments, contract), strict=True):
                value, error = split(bounded)
                finite = np.broadcast_to(error, value.shape) < np.inf
                assert (error <= np.broadcast_to(extent.error, value.shape))[finite].all(), case


def test_the_bound_tells_a_wrong_row_at_a_large_length():
    """Sixteen thousand keys in float32: an output of the size of the values is off by less than a hundredth of them."""
    case = parse_case("attention float32 b=1 h=1 l=2 d=8 g=1 s=16384 e=8 q=normal(0)*4 k=normal(1) v=normal(2)")
    [extent] = error_bounds("attention", case.arguments(), CONTRACTS["float32"])
    assert (extent.error < 0.01 * extent.largest).all()


def test_lengths_beyond_the_oracle_are_judged():
    found = findings_of(examiner_of("positions_in_sixteen_bits"))
    assert found
    assert all(finding.case.dims["s"] > 2**16 for finding in found)
    assert findings_of(examiner_of("right")) == []


def test_calls_that_agree_on_nan_are_a_finding():
    case = parse_case(PLAIN.replace("s=2", "s=9") + " invariant=key-permutation")
    finding = examiner_of("nan_for_many_keys").examine(case).finding
    assert finding.message == "key-permutation: the arguments are finite, but out[0, 0, 0, 0] is nan"


def test_a_selection_names_the_key_that_was_read():
    finding = findings_of(examiner_of("next_key_of_long_rows"), "selection")[0]
    assert "read key" in finding.reads
    assert "was meant" in finding.reads


def test_a_kernel_that_only_invariants_refute_is_refuted_and_its_line_replays():
    """Nothing but a poisoned neighbour shows what zero times a sum over the batch reads."""
    target = f"{KERNELS}:adds_nothing_of_other_sequences"
    [certificate] = certify(Request(targets=(target,), effort=Effort(examples=160, shrink_steps=60), isolated=False))
    [(finding, _)] = certificate.result.findings
    assert finding.kind == "invariant"
    assert parse_case(str(finding.case)) == finding.case
    judgement, _ = replay(replay_line(certificate.implementation, finding), None, Request(isolated=False))
    assert judgement.finding.message == finding.message


def test_shrinking_keeps_the_invariant():
    examiner = examiner_of("sum_of_first_row")
    finding = findings_of(examiner, "row-independence")[0]
    small = shrink(finding, lambda case: examiner.examine(case).finding, lambda case: True, 400, 20.0).case
    assert small.invariant == "row-independence"
    assert small.size < 9 < finding.case.size


def test_a_case_that_names_no_known_invariant_is_none():
    with pytest.raises(CaseError, match="invariant='symmetry', but should be one of selection, mean, "):
        parse_case(f"{PLAIN} invariant=symmetry")


def test_replaying_an_invariant_that_says_nothing_of_the_case_is_a_usage_error():
    with pytest.raises(UsageError, match="invariant='causal-prefix' says nothing of this case"):
        replay(f"target={KERNELS}:right backend=numpy {PLAIN} invariant=causal-prefix", None, Request(isolated=False))


def test_the_same_seed_gives_the_same_cases():
    examiner = examiner_of("right")
    first, second = ([str(case) for case in invariant_cases(examiner, 200, 60.0, seed=3)] for _ in range(2))
    assert first == second
    assert first != [str(case) for case in invariant_cases(examiner, 200, 60.0, seed=4)]
