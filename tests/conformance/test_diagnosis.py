"""What is said of a failure: its smallest case, when it happens, and what explains it."""

import io
import re
import zlib
from functools import cache
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from conformance.cases import parse_case
from conformance.cases.shapes import STAGES
from conformance.cases.strategies import random_case
from conformance.certificate import document
from conformance.certify import Request, certify
from conformance.diagnosis.evidence import Evidence
from conformance.diagnosis.explaining import explain
from conformance.diagnosis.shrink import keeps, shrink, simpler
from conformance.diagnosis.trigger import Limits, find_trigger
from conformance.hunting.hunt import Effort
from conformance.judge import Finding, Judgement
from conformance.registry import Implementation, block_sizes
from conformance.report.console import show_certificate
from oracle.conditions import holds
from oracle.readings.contract import CONTRACTS

KERNELS = Path(__file__).with_name("diagnosed.py")
PLANTED = Implementation(
    "planted", "attention", "numpy", "", options=("mask", "bias", "causal", "window", "softcap", "scale", "sinks"),
    tunables={"block_k": block_sizes},
)  # fmt: skip


@cache
def verdict_of(name, *restrictions):
    request = Request(targets=(f"{KERNELS}:{name}",), effort=Effort(examples=150), restrictions=dict.fromkeys(restrictions, "pasted"))
    [certificate] = certify(request)
    return certificate


def refuted(name):
    """Finding, explanations and trigger of a kernel."""
    certificate = verdict_of(name)
    assert certificate.verdict == "refuted", certificate.error or certificate.result
    [(finding, explained)] = certificate.result.findings
    return finding, explained, certificate.result.trigger


class Planted:
    """Examines cases by a rule in place of a kernel, and remembers them."""

    def __init__(self, fails, kind="wrong-value"):
        self.fails, self.kind, self.tried = fails, kind, {}

    def finding(self, case):
        return Finding(self.kind, case, "planted", ratio=1e6) if self.fails(case) else None

    def __call__(self, case):
        self.tried[str(case)] = Judgement(case, self.finding(case))
        return self.tried[str(case)]

    def shrunk(self, seed=0, stage=1):
        rng = Random(seed)
        drawn = (random_case(rng, PLANTED, "float32", STAGES[stage]) for _ in range(10_000))
        found = next(filter(None, map(self.finding, drawn)))
        return shrink(found, lambda case: self(case).finding, lambda case: True, 600, 60.0)

    def trigger(self, seed=0, stage=1, limits=None):
        rng, shrunk = Random(seed), self.shrunk(seed, stage)
        seen = [self(random_case(rng, PLANTED, "float32", STAGES[0])) for _ in range(40)]
        return find_trigger(shrunk, seen, list(self.tried.values()), PLANTED, self, lambda case: True, limits or Limits())


def dims_of(case):
    return {name: case.dims[name] for name in "bhlgsde"}


CONDITIONS = [
    "s % 64 == 1",
    "s > 100",
    "l != s",
    "h // g == 3",
    "d % 8 != 0",
    "causal and mask is not None",
    "s % 16 == 0 and causal",
    "sinks is not None and l > 4",
    "not (causal) and s % 8 != 0",
    "scale == 0",
    "b == h and mask is not None",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_planted_condition_is_found_in_the_language_of_restrictions(condition):
    planted = Planted(lambda case: holds(condition, case.facts()))
    trigger = planted.trigger()
    assert trigger is not None
    # In other words perhaps, but true of the same cases.
    rng = Random(99)
    assert trigger.condition, trigger
    for _ in range(200):
        case = random_case(rng, PLANTED, "float32", STAGES[1])
        assert holds(trigger.condition, case.facts()) == holds(condition, case.facts()), (trigger, str(case))


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        (lambda case: case.arrays["k"].layout == "expanded" and case.dims["g"] > 1 and case.dims["s"] > 0, "k is expanded with"),
        (lambda case: case.arrays["q"].layout == "padded" and case.dims["l"] > 1 and case.size > 0, "q has gaps behind its rows"),
        (lambda case: case.dims["s"] > case.tunables["block_k"], "number of key tiles > 1"),
        (lambda case: -(-case.dims["s"] // case.tunables["block_k"]) % 2 == 0, "number of key tiles % 2 == 0"),
        (lambda case: case.warm, "another call came before"),
        (lambda case: "mask" in case.arrays and len(case.axes("mask")) == 3, "number of axes of mask == 3"),
        (lambda case: case.options.get("window", (1,))[0] == 0, "left bound of the window == 0"),
    ],
)  # fmt: skip
def test_conditions_without_such_words_are_said_in_plain_ones(fails, text):
    trigger = Planted(fails).trigger()
    assert text in trigger.text
    assert trigger.condition == ""


@pytest.mark.parametrize("seed", range(8))
def test_no_case_that_was_tried_contradicts_a_trigger(seed):
    """Whatever the rule, and these are none that the vocabulary has words for."""
    odd = Random(seed).choice([3, 5, 7])
    rules = (
        lambda case: zlib.crc32(f"{seed} {case}".encode()) % 3 == 0,
        lambda case: (case.dims["s"] + case.dims["l"]) % odd == 0,
        lambda case: case.dims["s"] % 64 == 1 or "softcap" in case.options,
        lambda case: sum(case.dims.values()) > 40 and zlib.crc32(str(case).encode()) % 8 != 0,
    )
    planted = Planted(rules[seed % len(rules)])
    trigger = planted.trigger(seed)
    if trigger is not None and trigger.atoms and not trigger.text.startswith("near"):
        failed = [judgement.case for judgement in planted.tried.values() if judgement.finding is not None]
        assert failed
        assert all(trigger.holds(case, {}) for case in failed), trigger


def test_where_nothing_separates_nothing_is_said():
    assert Planted(lambda case: zlib.crc32(str(case).encode()) % 2 == 0).trigger() is None


def test_a_failure_of_every_case_is_said_to_be_one():
    trigger = Planted(lambda case: True).trigger()
    assert trigger.text == "on every case tried"
    assert trigger.failed > 50


def test_another_mistake_further_off_does_not_hide_the_one_at_hand():
    planted = Planted(lambda case: ("causal" in case.options and case.dims["s"] % 2 == 0) or ("mask" in case.arrays and case.dims["b"] > 1))
    start = parse_case("attention float32 b=1 h=1 l=1 d=1 g=1 s=2 e=1 causal=True q=normal(0) k=normal(0) v=normal(0) block_k=1")
    seen = [planted(random_case(Random(seed), PLANTED, "float32", STAGES[0])) for seed in range(40)]
    trigger = find_trigger(planted.finding(start), seen, [], PLANTED, planted, lambda case: True, Limits())
    assert "near this case only when" in trigger.text
    assert "causal is given" in trigger.text
    assert "s % 2 == 0" in trigger.text
    assert trigger.condition == ""


def test_few_probes_fail_where_each_costs_a_worker():
    planted = Planted(lambda case: case.dims["s"] > 2, kind="crash")
    shrunk = planted.shrunk()
    planted.tried.clear()
    trigger = find_trigger(shrunk, [], [], PLANTED, planted, lambda case: True, Limits(failures=6))
    assert sum(judgement.finding is not None for judgement in planted.tried.values()) <= 6
    assert trigger is None or all(trigger.holds(j.case, {}) for j in planted.tried.values() if j.finding)


MINIMAL = [
    ("s % 64 == 1 and s > 1", "b=1 h=1 l=1 d=1 g=1 s=65 e=1 q=normal(0) k=normal(0) v=normal(0) block_k=1"),
    ("h // g == 3", "b=1 h=3 l=1 d=1 g=1 s=1 e=1 q=normal(0) k=normal(0) v=normal(0) block_k=1"),
    ("causal and l < s", "b=1 h=1 l=1 d=1 g=1 s=2 e=1 causal=True q=normal(0) k=normal(0) v=normal(0) block_k=1"),
    ("mask is not None and b > 1", "b=2 h=1 l=1 d=1 g=1 s=1 e=1 q=normal(0) k=normal(0) v=normal(0) mask=full(0) block_k=1"),
    ("d % 8 == 4 and bias is not None", "b=1 h=1 l=1 d=4 g=1 s=1 e=1 q=normal(0) k=normal(0) v=normal(0) bias=normal(0) block_k=1"),
]


@pytest.mark.parametrize(("condition", "line"), MINIMAL)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_bug_shrinks_to_its_minimal_case(condition, line, seed):
    case = Planted(lambda case: holds(condition, case.facts())).shrunk(seed).case
    # Zeros are as plain as normal numbers, and the axes of an array of one element do not matter.
    assert re.sub(r"\[[\w,]*\]", "", str(case).replace("zeros", "normal")) == f"attention float32 {line}"


@pytest.mark.parametrize("seed", range(4))
def test_no_single_step_makes_a_shrunk_case_simpler(seed):
    planted = Planted(lambda case: case.dims["s"] * case.dims["d"] > 200 and ("mask" in case.arrays or case.dims["b"] % 2 == 0))
    shrunk = planted.shrunk(seed)
    assert not [str(case) for case in simpler(shrunk.case) if case.consistent and keeps(shrunk, planted.finding(case))]


def test_shrinking_does_not_slide_to_the_threshold():
    """Each step here halves the ratio; a rule that looked at the last step only would follow it down to 1."""
    original = parse_case("attention float32 b=3 h=4 l=17 d=33 g=2 s=65 e=12 causal=True q=rising(3)*10 k=normal(2) v=index(1)")
    weight = lambda case: sum(case.dims.values())  # noqa: E731

    def examine(case):
        return Finding("wrong-value", case, "", ratio=max(2e5 * 0.5 ** ((weight(original) - weight(case)) / 3), 1.01))

    shrunk = shrink(Finding("wrong-value", original, "", ratio=2e5), examine, lambda case: True, 2000, 60.0)
    assert shrunk.ratio >= 1000
    assert weight(shrunk.case) < weight(original)


def test_only_as_clear_a_finding_of_the_same_kind_is_kept():
    case = parse_case("attention float32 b=1 h=1 l=1 d=1 g=1 s=1 e=1 q=normal(0) k=normal(0) v=normal(0)")
    finding = lambda ratio, kind="wrong-value": Finding(kind, case, "", ratio=ratio)  # noqa: E731
    assert keeps(finding(1e6), finding(1e3))
    assert not keeps(finding(1e6), finding(999.0))
    assert not keeps(finding(5.0), finding(4.0))
    assert keeps(finding(200.0), finding(20.0))
    assert not keeps(finding(200.0), finding(19.0))
    assert not keeps(finding(200.0), finding(float("inf"), "nan"))
    assert not keeps(finding(200.0), None)


@pytest.mark.parametrize(
    ("kernel", "text", "elements"),
    [
        ("last_key_dropped_after_whole_tiles", "only when s % 64 == 1", ""),
        ("mask_lost_with_causal", "causal is given", ""),
        ("second_sequence_unwritten", "only when b > 1", "elements whose batch index is not 0"),
        ("broadcast_keys_read_once", "only when k is expanded with stride 0 along its heads", "elements whose head index is not 0"),
        ("raises_for_scattered_queries", "only when q is not contiguous", ""),
    ],
)
def test_a_kernel_is_told_when_it_fails(kernel, text, elements):
    _, _, trigger = refuted(kernel)
    assert text in trigger.text
    assert elements in trigger.elements


def test_a_condition_can_be_pasted_as_a_restriction():
    _, _, trigger = refuted("group_of_three_reads_the_first_head")
    assert trigger.condition == "h // g == 3"
    certificate = verdict_of("group_of_three_reads_the_first_head", f"not ({trigger.condition})")
    assert certificate.verdict == "certified", certificate.result


@pytest.mark.parametrize(
    ("kernel", "explanation"),
    [
        ("blocking_mask", "follows convention mask_polarity=block; declare it if that is meant (--convention mask_polarity=block)"),
        ("head_major", "agrees when called with layout 'b l h d'; declare it if that is meant (--layout 'b l h d')"),
        (
            "head_major_with_blocking_mask",
            "agrees when called with layout 'b l h d' together with follows convention mask_polarity=block; "
            "declare them if that is meant (--layout 'b l h d' --convention mask_polarity=block)",
        ),
        (
            "additive_mask",
            "follows convention mask_type=additive together with follows convention empty_row=nan; "
            "declare them if that is meant (--convention mask_type=additive --convention empty_row=nan)",
        ),
        (
            "two_conventions",
            "follows convention causal_alignment=top-left together with follows convention head_map=interleaved; "
            "declare them if that is meant (--convention causal_alignment=top-left --convention head_map=interleaved)",
        ),
        (
            "convention_and_mistake",
            "follows convention causal_alignment=top-left together with softcap-not-multiplied-back; "
            "declare it if that is meant (--convention causal_alignment=top-left)",
        ),
    ],
)
def test_conventions_are_named_alone_and_with_another(kernel, explanation):
    _, explained, _ = refuted(kernel)
    assert explanation in explained


def test_two_mistakes_are_named_together():
    _, explained, _ = refuted("two_mistakes")
    assert explained == ["causal-off-by-one together with softcap-as-clamp"]


def test_a_known_mistake_of_one_path_is_named_with_where_it_holds():
    _, explained, trigger = refuted("mask_lost_with_causal")
    assert "mask-ignored-when-causal" in explained
    assert "mask is given" in trigger.text or "some key is hidden" in trigger.text


def test_low_precision_is_told_with_the_contract_that_holds_and_the_one_that_does_not():
    _, explained, _ = refuted("reads_ten_bits")
    named = "precision: meets contract tf32, but not float32-bfloat16-weights (error/budget "
    assert any(text.startswith(named) for text in explained), explained
    assert any(text.endswith("declare it if that is meant (--contract tf32)") for text in explained)


def test_a_layout_is_not_named_where_all_axes_have_one_size():
    line = "attention float32 b={0} h={0} l={0} d={0} g={0} s={0} e={0} q=normal({0}) k=normal(1) v=normal(2)"
    cases = [parse_case(line.format(size)) for size in (1, 2, 3, 4)]
    failing = [Judgement(case, Finding("exception", case, "")) for case in cases]
    evidence = Evidence(PLANTED, {}, CONTRACTS["float32"], failing, [])
    assert explain(evidence, lambda implementation, case: Judgement(case, None), None, 1.0) == [
        "follows convention mask_polarity=block; declare it if that is meant (--convention mask_polarity=block)",
        "follows convention mask_type=additive; declare it if that is meant (--convention mask_type=additive)",
    ]


def test_what_fails_after_other_calls_only_is_said_to():
    finding, _, trigger = refuted("wrong_after_three_calls")
    assert finding.kind == "depends-on-history"
    assert trigger.text == "only after other calls, not alone in a new process"


def test_a_finding_that_takes_an_earlier_call_names_it_in_its_case():
    finding, _, trigger = refuted("keeps_the_keys_of_a_shape")
    assert str(finding.case).endswith("q=normal(0) k=normal(0) v=normal(0) calls=warm")
    assert {letter: finding.case.dims[letter] for letter in "bhgls"} == {"b": 1, "h": 1, "g": 1, "l": 1, "s": 2}
    assert trigger.text == "only when another call of the same shapes came before"


def test_the_certificate_holds_the_trigger():
    certificate = verdict_of("group_of_three_reads_the_first_head")
    [entry] = document([certificate])["results"][0]["findings"]
    trigger = entry["trigger"]
    assert trigger["text"] == "only when h // g == 3 (h: query heads, g: key/value heads)"
    assert trigger["condition"] == "h // g == 3"
    assert set(trigger) == {"text", "condition", "failed", "passed", "passed_outside", "elements"}
    assert trigger["failed"] > 20 < trigger["passed_outside"]


def test_the_console_tells_when_it_happens_and_how_to_leave_that_out():
    out = Console(file=io.StringIO(), soft_wrap=True)
    show_certificate(out, verdict_of("second_sequence_unwritten"))
    text = out.file.getvalue()
    counts = r"\d+ of \d+ such cases failed, none of \d+ others did; wrong are only elements whose batch index is not 0\n"
    assert re.search(r"  happens    only when b > 1 \(b: batch\): " + counts, text)
    assert "  left out by --restrict 'not (b > 1)'\n" in text
    assert "  explained by later-batches-unwritten: Only the first element of the batch is computed" in text


def test_the_console_explains_both_of_two_mistakes():
    out = Console(file=io.StringIO(), soft_wrap=True)
    show_certificate(out, verdict_of("two_mistakes"))
    text = out.file.getvalue()
    assert "a query does not see the key at its own position." in text
    assert "instead of bent by tanh." in text


def test_a_tunable_of_few_values_has_one_of_them_in_the_smallest_case_too():
    finding, _, _ = refuted("chosen_tiles")
    assert finding.kind == "wrong-value"
    assert finding.case.tunables["block_k"] in (16, 32)
