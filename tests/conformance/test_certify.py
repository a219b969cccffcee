"""From a kernel to its verdict, through the public function that the command line calls."""

from functools import cache
from pathlib import Path

import pytest

from conformance.cases.lines import parse_case
from conformance.certificate import document, exit_code
from conformance.certify import Request, certify
from conformance.errors import UsageError
from conformance.examine import Examiner
from conformance.hunting.search import Effort
from conformance.isolation.sandbox import Limits, Sandbox

KERNELS = Path(__file__).with_name("kernels.py")
QUICK = Effort(examples=150)


def verdict_of(name, **request):
    [certificate] = certify(Request(targets=(f"{KERNELS}:{name}",), **{"effort": QUICK, **request}))
    return certificate


@cache
def known(name, examples=QUICK.examples):
    """The certificate of a kernel, hunted once for all tests that look at it."""
    return verdict_of(name, effort=Effort(examples=examples))


def only_finding(certificate):
    assert certificate.verdict == "refuted", certificate.error or certificate.result
    [(finding, explained)] = certificate.result.findings
    return finding, explained


def test_a_right_kernel_is_certified_with_the_mistakes_that_were_ruled_out():
    certificate = known("right")
    assert certificate.verdict == "certified", certificate.result
    assert 0 < certificate.result.worst_ratio < 1
    assert {"unstable-softmax", "causal-top-left", "scale-twice"} <= set(certificate.result.ruled_out)


def test_tunables_of_a_registered_kernel_are_drawn():
    certificate = known("tiled")
    assert certificate.verdict == "certified", certificate.result
    assert "block_k=" in certificate.result.worst_case


def test_mistakes_at_the_edges_of_its_own_tiles_are_ruled_out_where_a_kernel_has_any():
    own = {"stale-accumulator (tile block_k)", "tail-padding-keys-counted (tile block_k)", "stale-accumulator (tile 16)"}
    assert own <= set(known("tiled").result.ruled_out)
    assert own & set(known("right").result.ruled_out) == {"stale-accumulator (tile 16)"}


def test_a_kernel_that_follows_another_convention_is_told_which():
    finding, explained = only_finding(known("top_left"))
    assert finding.kind == "wrong-value"
    assert any("causal_alignment=top-left" in line for line in explained)


def test_a_declared_convention_is_judged_as_declared():
    certificate = verdict_of("top_left", conventions={"causal_alignment": "top-left"}, effort=Effort(examples=150))
    assert certificate.verdict == "certified", certificate.result.findings


def test_a_known_mistake_is_named():
    _, explained = only_finding(verdict_of("unstable"))
    assert "unstable-softmax" in explained


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("raises", "exception"),
        ("segfaults", "crash"),
        ("exits", "exit"),
        ("devours_memory", "exception"),
        ("scales_in_place", "input-changed"),
        ("negates_its_arguments", "input-changed"),
        ("returns_objects", "type"),
        ("returns_a_list", "type"),
        ("returns_float64", "dtype"),
        ("drops_an_axis", "shape"),
        ("never_writes_row_five", "wrong-value"),
        ("returns_its_input", "aliases-input"),
        ("reuses_a_buffer", "changed-later"),
        ("drifts", "unrepeatable"),
    ],
)
def test_misbehaviour_is_a_finding_of_its_kind(kernel, kind):
    finding, _ = only_finding(verdict_of(kernel))
    assert finding.kind in (kind, "nan", "wrong-value") if kernel in ("drifts", "never_writes_row_five") else finding.kind == kind, finding


def test_a_hang_ends_as_a_finding():
    limits = Limits(seconds=0.5, first_seconds=1.0)
    finding, _ = only_finding(verdict_of("hangs", limits=limits, effort=Effort(examples=40, shrink_seconds=4.0)))
    assert finding.kind == "hang"


@pytest.mark.parametrize(("kernel", "kind"), [("sleeps", "hang"), ("sleeps_while_another_process_works", None)])
def test_only_a_kernel_that_nobody_works_for_has_slept_long_enough_at_its_limit(kernel, kind):
    with Sandbox(Limits(first_seconds=1.0)) as sandbox:
        [loaded] = sandbox.load(f"{KERNELS}:{kernel}", method="attention")
        case = parse_case("attention float32 b=1 h=1 g=1 l=2 s=3 d=2 e=2 q=normal(0) k=normal(1) v=normal(2)")
        finding = Examiner(loaded, "float32", sandbox).run(case, identical=1).finding
        assert (finding.kind if finding else None) == kind
        assert sandbox.seconds_waiting < 5, "it was waited for as if it had not had the processor"


def test_a_kernel_that_is_slow_on_every_case_is_given_longer_for_a_larger_one():
    with Sandbox(Limits(seconds=0.3, first_seconds=60.0)) as sandbox:
        [loaded] = sandbox.load(f"{KERNELS}:takes_long_for_each_query", method="attention")
        examiner = Examiner(loaded, "float32", sandbox)
        for queries in (1, 4, 20):
            judgement = examiner.examine(
                parse_case(f"attention float32 b=1 h=1 g=1 l={queries} s=3 d=2 e=2 q=normal(0) k=normal(1) v=normal(2)")
            )
            assert judgement.finding is None, judgement.finding.message


def test_the_same_seed_gives_the_same_verdict_and_case():
    first, second = (only_finding(verdict_of("unstable", effort=Effort(examples=80, seed=5)))[0] for _ in range(2))
    assert (str(first.case), first.message) == (str(second.case), second.message)


def test_a_shrunk_case_stays_far_outside_the_budget():
    finding, _ = only_finding(known("top_left"))
    assert finding.ratio >= 1000
    assert finding.case.dims["l"] * finding.case.dims["s"] <= 9, finding.case


def test_a_finding_of_one_target_leaves_the_results_of_the_others_intact():
    targets = tuple(f"{KERNELS}:{name}" for name in ("segfaults", "right", "no_such_kernel"))
    certificates = certify(Request(targets=targets, effort=Effort(examples=150)))
    assert [certificate.verdict for certificate in certificates] == ["refuted", "certified", "error"]
    assert exit_code(certificates) == 1
    assert [entry["verdict"] for entry in document(certificates)["results"]] == ["refuted", "certified", "error"]


def test_without_isolation_a_kernel_runs_in_this_process():
    certificate = verdict_of("right", isolated=False, effort=Effort(examples=150))
    assert certificate.verdict == "certified", certificate.result


def test_inference_reports_the_tightest_contract_that_holds():
    certificate = verdict_of("right", contract="infer", effort=Effort(examples=150))
    assert certificate.result.contract.name == "float32"
    assert [(tried["contract"], tried["verdict"]) for tried in certificate.inferred][0] == ("float32", "meets")
    assert {tried["contract"] for tried in certificate.inferred} >= {"float32", "tf32", "float32-bfloat16-weights"}
    assert all(0 < tried["worst_ratio"] < 1 for tried in certificate.inferred)


def test_inference_shows_the_case_on_which_the_next_tighter_contract_fails():
    certificate = verdict_of("weights_in_half", contract="infer", effort=Effort(examples=150))
    assert certificate.result.contract.name == "float32-float16-weights"
    tighter = {tried["contract"]: tried for tried in certificate.inferred}["float32"]
    assert tighter["verdict"] == "refuted"
    assert float(tighter["worst_ratio"]) > 1
    assert tighter["case"].startswith("attention float32")


def test_a_mistake_that_no_contract_covers_is_refuted_under_the_one_of_the_dtype():
    certificate = verdict_of("top_left", contract="infer")
    assert certificate.verdict == "refuted"
    assert certificate.result.contract.name == "float32"
    assert {tried["verdict"] for tried in certificate.inferred} == {"refuted"}


def test_too_few_cases_are_inconclusive_rather_than_certified():
    certificate = verdict_of("right", effort=Effort(examples=2))
    assert certificate.verdict == "inconclusive"
    assert certificate.result.not_ruled_out
    assert exit_code([certificate]) == 3


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"dtypes": ("int8",)}, "dtype='int8', but should be one of float64"),
        ({"contract": "exact"}, "contract='exact', but should be 'infer' or one of"),
        ({"effort": Effort(examples=0)}, "max-examples=0, but should be greater than 0"),
    ],
)
def test_a_request_that_cannot_be_met_is_a_usage_error(request_, message):
    with pytest.raises(UsageError, match=message):
        certify(Request(targets=("numpy.standard",), **request_))


def test_nothing_to_certify_is_an_error():
    with pytest.raises(UsageError, match="no implementation fits"):
        exit_code([])
