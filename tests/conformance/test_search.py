"""Which cases a hunt executes, in which order, and what it remembers from one run to the next."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.adequacy import OCCASIONS, Adequacy
from conformance.cases import parse_case
from conformance.certify import Request, certify
from conformance.errors import UsageError
from conformance.examine import Examiner
from conformance.hunting.memory import Memory
from conformance.hunting.search import LEAST_SHARE, Effort, Search
from conformance.isolation.sandbox import InProcess
from conformance.judge import Finding
from conformance.probes import probe_cases

KERNELS = Path(__file__).with_name("kernels.py")


def search_of(kernel, effort, **declared):
    sandbox = InProcess()
    [implementation] = sandbox.load(f"{KERNELS}:{kernel}", **declared)
    examiner = Examiner(implementation, "float32", sandbox)
    return Search(examiner, Adequacy(implementation), effort)


def run(search, look):
    """Run a search with a function that looks at each judgement and says whether to stop; the cases that it saw."""
    seen = []

    def examine(case):
        judgement = search.examiner.examine(case)
        assert judgement.finding is None, judgement.finding
        search.adequacy.learn(judgement)
        seen.append(judgement)
        return replace(judgement, finding=Finding("stop", case, "enough")) if look(judgement) else judgement

    search.run(examine)
    return seen


def test_a_slow_kernel_meets_the_cases_that_rule_mistakes_out_first():
    def slowly(judgement):
        time.sleep(0.06)
        return search.stage == "aimed" and not search.adequacy.left

    search = search_of("right", Effort(seconds=30.0))
    seen = run(search, slowly)
    assert search.stage == "aimed"
    assert len(seen) < 120
    assert {"causal-top-left", "stale-accumulator (tile 16)"} <= set(search.adequacy.ruled_out)


def test_a_slow_kernel_meets_the_least_number_of_cases_where_probes_are_few_and_nothing_is_left_to_aim_at():
    effort = Effort(examples=200, seconds=8.0)
    search = search_of("strided_grouped", effort, method="strided_attention", backend="numpy")
    seen = run(search, lambda judgement: time.sleep(0.05))
    assert LEAST_SHARE * effort.examples <= len(seen) < effort.examples


def test_a_fast_kernel_meets_as_many_cases_as_were_asked_for():
    search = search_of("right", Effort(examples=60))
    assert len(run(search, lambda judgement: search.executed == 60)) == 60


def test_a_mistake_that_only_a_late_case_brings_out_is_ruled_out():
    search = search_of("right", Effort())
    plain, telling = (
        search.examiner.examine(parse_case(f"attention float32 b=1 h=1 g=1 l=3 s=5 d=4 e=4 q=normal(0) k=normal(1) v=normal(2) {option}"))
        for option in ("", "scale=0.0")
    )
    for _ in range(OCCASIONS + 1):
        search.adequacy.learn(plain)
    assert "scale-zero-taken-for-default" not in search.adequacy.ruled_out
    search.adequacy.learn(telling)
    assert "scale-zero-taken-for-default" in search.adequacy.ruled_out


@pytest.mark.parametrize("kernel", ["numpy.flash2", "numpy.flash2_with_lse"])
def test_the_probes_alone_rule_out_what_few_random_cases_bring_out(kernel):
    sandbox = InProcess()
    [implementation] = sandbox.load(kernel)
    examiner, adequacy = Examiner(implementation, "float32", sandbox), Adequacy(implementation)
    for case in probe_cases(implementation, "float32"):
        adequacy.learn(examiner.examine(case))
    tails = {f"{name} (tile {tile})" for name in ("tail-mask-by-query-length", "softcap-after-padding") for tile in (16, 32, 64, 128)}
    assert tails | {"mask-of-three-axes-per-batch", "mask-of-two-axes-as-padding"} <= set(adequacy.ruled_out)


def test_every_aimed_case_rules_something_out():
    search = search_of("right", Effort(examples=30))
    before = {}

    def learned(judgement):
        if search.stage == "aimed":
            before[search.executed] = len(search.adequacy.ruled_out)
        return False

    run(search, learned)
    counts = list(before.values())
    assert counts == sorted(set(counts))


def test_the_directed_search_raises_the_error_over_budget():
    effort = Effort(examples=120)
    by_stage = {}
    search = search_of("right", effort)
    run(search, lambda judgement: by_stage.setdefault(search.stage, []).append(judgement.ratio))
    directed = by_stage["directed"]
    assert len(directed) >= 10
    assert max(directed) > sorted(by_stage["small"])[len(by_stage["small"]) // 2]


def test_the_same_effort_gives_the_same_cases():
    first, second = ([str(judgement.case) for judgement in run(search_of("right", Effort(examples=50)), lambda _: False)] for _ in range(2))
    assert first == second


def test_a_failing_case_comes_first_in_the_next_run_until_it_passes(tmp_path):
    database = str(tmp_path / "failures")
    request = Request(targets=(f"{KERNELS}:top_left",), effort=Effort(examples=150), database=database)
    [before] = certify(request)
    assert before.verdict == "refuted"
    [again] = certify(request)
    assert again.result.examples == 2  # a plain call opens the hunt
    # Declared as meant, the remembered case passes and is forgotten.
    declared = replace(request, conventions={"causal_alignment": "top-left"})
    assert [certificate.verdict for certificate in certify(declared)] == ["certified"]
    assert Memory(database).recall(before.implementation, "float32") == []


def test_what_cannot_be_called_any_more_is_not_recalled(tmp_path):
    database = str(tmp_path / "failures")
    [certificate] = certify(Request(targets=(f"{KERNELS}:top_left",), effort=Effort(examples=150), database=database))
    case = certificate.result.findings[0][0].case
    assert Memory(database).recall(certificate.implementation, "float32") == [case]
    for changed in ({"options": ()}, {"restrictions": {"l == 1000": "a test"}}):
        assert Memory(database).recall(replace(certificate.implementation, **changed), "float32") == []


def test_a_database_that_is_a_file_is_a_clear_error(tmp_path):
    file = tmp_path / "failures"
    file.write_text("")
    with pytest.raises(UsageError, match="is a file, but should be a folder"):
        Memory(str(file))
