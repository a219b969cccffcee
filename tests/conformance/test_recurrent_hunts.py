"""Hunts of recurrences: the precision of states, and what goes wrong only after thousands of tokens."""

import pytest

from conformance.adequacy import Adequacy
from conformance.certify import INFER, Request, certify
from conformance.examine import Examiner
from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort, Search
from conformance.isolation.sandbox import InProcess
from conformance.probes.long_rows import LONG_ROWS, LONGEST, long_cases
from conformance.registry import Implementation, Tunable
from oracle import METHODS

KERNELS = "tests/conformance/recurrent_kernels.py"
STATES = [
    (f"{rule}_state_in_{dtype}", method, dtype)
    for rule, method in (("gated", "gated_linear_attention"), ("delta", "delta_rule"))
    for dtype in ("bfloat16", "float16")
]


def anything_of(method):
    return Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords)


def hunted(function, method, dtype, contract=None, examples=600):
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:{function}", method=method, backend="numpy")
        implementation = implementation.declaring(contract=contract) if contract else implementation
        return Hunt(implementation, dtype, sandbox, Effort(examples=examples, diagnose=False)).run()


@pytest.mark.parametrize(("function", "method", "dtype"), STATES)
def test_a_state_in_16_bits_is_refuted_where_it_is_not_declared(function, method, dtype):
    assert hunted(function, method, dtype).verdict == "refuted"


@pytest.mark.parametrize(("function", "method", "dtype"), STATES)
def test_a_state_in_16_bits_is_certified_where_it_is_declared(function, method, dtype):
    result = hunted(function, method, dtype, f"{dtype}-state", examples=150)
    assert (result.verdict, result.findings) == ("certified", [])
    assert "state-in-storage-dtype" not in [*result.ruled_out, *result.not_ruled_out]


@pytest.mark.parametrize(
    ("function", "contract"),
    [("gated_state_in_bfloat16", "bfloat16-state"), ("gated_state_in_float32", "bfloat16-float32-weights")],
)
def test_inference_tells_in_which_precision_a_state_is_kept(function, contract):
    request = Request(
        targets=(f"{KERNELS}:{function}",), method="gated_linear_attention", backend="numpy", dtypes=("bfloat16",), contract=INFER,
        isolated=False, effort=Effort(examples=150, diagnose=False),
    )  # fmt: skip
    [certificate] = certify(request)
    assert certificate.verdict == "certified"
    assert certificate.result.contract.name == contract


# One key of thousands weighs less than a rounding to bfloat16.
@pytest.mark.parametrize(
    ("function", "method", "dtypes"),
    [
        ("gated_chunk_number_in_a_byte", "gated_linear_attention", ("float32", "bfloat16")),
        ("gated_decays_twice_every_1024", "gated_linear_attention", ("float32", "bfloat16")),
        ("retention_decays_twice_every_1024", "retention", ("float32", "bfloat16")),
        ("delta_table_of_2048", "delta_rule", ("float32", "bfloat16")),
        ("gated_delta_state_lost_at_1024", "gated_delta_rule", ("float32", "bfloat16")),
        ("linear_denominator_of_2048", "linear_attention", ("float32",)),
        ("performer_key_1024_lost", "performer_attention", ("float32",)),
    ],
)
def test_what_goes_wrong_after_thousands_of_tokens_is_found_by_long_rows(function, method, dtypes):
    for dtype in dtypes:
        with InProcess() as sandbox:
            [implementation] = sandbox.load(f"{KERNELS}:{function}", method=method, backend="numpy")
            examiner = Examiner(implementation, dtype, sandbox)
            refuting = [case for case in long_cases(implementation, dtype) if examiner.examine(case).finding is not None]
        assert refuting, dtype
        assert all(case.dims["l"] > 1024 for case in refuting)


@pytest.mark.parametrize("method", LONG_ROWS)
def test_long_rows_fit_their_method_and_are_kept_by_it(method):
    cases = list(long_cases(anything_of(method), "float32"))
    assert len(cases) == len(LONG_ROWS[method])
    for case in cases:
        METHODS[method].check(case.arguments())
        assert 1000 < case.dims["l"] <= LONGEST


def test_long_rows_have_many_chunks():
    tunables = {"chunk_size": Tunable("choice", (64, 1, 16, 32))}
    implementation = Implementation("any", "delta_rule", "numpy", "any:any", options=(), tunables=tunables)
    [case, *_] = long_cases(implementation, "float32")
    assert case.tunables == {"chunk_size": 16}
    assert case.dims["l"] > 256 * 16


def test_long_rows_keep_to_restrictions():
    implementation = Implementation("any", "retention", "numpy", "any:any", options=(), restrictions={"l <= 1024": "is short"})
    assert list(long_cases(implementation, "float32")) == []
    free = Implementation("any", "retention", "numpy", "any:any", options=())
    assert len(list(long_cases(free, "float32"))) == 2  # without an initial state


def test_a_hunt_of_a_recurrence_looks_at_long_rows():
    seen = []
    with InProcess() as sandbox:
        [implementation] = sandbox.load("numpy.retention_chunked")
        examiner = Examiner(implementation, "float32", sandbox)

        def look(case):
            seen.append(case)
            return examiner.examine(case)

        assert Search(examiner, Adequacy(implementation), Effort(examples=40)).run(look) is None
    assert [case for case in seen if case in list(long_cases(implementation, "float32"))] == list(long_cases(implementation, "float32"))


def test_a_finding_of_a_kernel_that_leaves_out_the_final_state_is_diagnosed():
    with InProcess() as sandbox:
        [implementation] = sandbox.load(f"{KERNELS}:gated_output_only", method="gated_linear_attention", backend="numpy")
        result = Hunt(implementation, "float32", sandbox, Effort(examples=150)).run()
    assert result.verdict == "refuted"
    assert (result.trigger.condition, result.trigger.elements) == ("l > 64", "elements whose query index >= 64")
