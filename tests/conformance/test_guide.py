"""The guide: what it takes for which question, and why not the rest."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from conformance.cli import main
from conformance.guide.advise import Question, advise
from conformance.guide.candidates import CANDIDATES, Sizes, measured_error
from conformance.loading import discover
from oracle import METHODS

SIZES = Sizes(8192)


def attest(*words):
    return CliRunner().invoke(main, ["guide", *map(str, words)])


def by_name(*question, **measured):
    return {one.candidate.name: one for one in advise(Question(*question), **measured)}


def first(*question):
    return advise(Question(*question))[0]


def test_candidates_are_methods_and_their_kernels_are_registered():
    known = {one.implementation.name: one.implementation.method for one in discover()[0]}
    for candidate in CANDIDATES:
        assert candidate.method in METHODS
        assert candidate.kernels and all(known[name] == candidate.method for name in candidate.kernels), candidate.name


def test_memory_grows_as_the_methods_say():
    longer = replace(SIZES, length=2 * SIZES.length)
    for candidate in CANDIDATES:
        quadratic = candidate.name == "standard attention"
        assert candidate.held(longer) == (4 if quadratic else 1) * candidate.held(SIZES), candidate.name
    fixed = {candidate.name for candidate in CANDIDATES if candidate.cache(longer) == candidate.cache(SIZES)}
    assert fixed == {candidate.name for candidate in CANDIDATES if candidate.quality == "trained"}


def test_the_numbers_of_softmax_attention_come_from_the_kernel_that_holds_least():
    assert first(SIZES).candidate.name == "FlashAttention"
    assert by_name(SIZES, "train")["standard attention"].bytes == 32 * 32 * 8192**2 * 2
    assert by_name(SIZES, "prefill")["standard attention"].bytes == 32 * 8192**2 * 2


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ((Sizes(65536), "decode", "recall"), "multi-query attention"),
        ((Sizes(65536), "decode", "trained"), "sliding window with global tokens"),
        ((Sizes(65536), "train", "recall"), "native sparse attention"),
        ((Sizes(65536), "train", "close"), "FlashAttention"),
        ((Sizes(65536), "prefill", "close"), "FlashAttention, products in 8 bits"),
        ((Sizes(65536), "prefill", "trained"), "linear attention"),
    ],
)
def test_what_is_taken(question, name):
    assert first(*question).candidate.name == name


def test_what_does_not_fit_has_its_reason():
    found = by_name(Sizes(65536), "decode", "recall", 2.0**30)
    assert found["FlashAttention"].why == "it takes 3.277e+04 MiB of 1024"
    assert found["linear attention"].why == "it keeps a fixed amount of the past, and cannot single out any token"
    assert found["multi-query attention"].fits
    exact = by_name(SIZES)
    assert exact["linear attention"].why == "a model has to be trained with it"
    assert exact["FlashAttention, products in 8 bits"].why == "it only comes near softmax attention"
    assert by_name(SIZES, "train", "close")["FlashAttention, products in 8 bits"].why == "it has no backward pass"
    assert not any(one.fits for one in advise(Question(SIZES, memory=1.0)))


def test_errors_are_measured():
    assert measured_error("FlashAttention", 8192) == 0
    assert measured_error("grouped-query attention, 4 queries a head", 8192) is None
    assert 0 < measured_error("FlashAttention, products in 8 bits", 64) < 0.1 < measured_error("linear attention", 64)


def test_measured_times_decide_where_everything_that_fits_was_measured():
    near = {"numpy.standard": {8000: 1.0}, "numpy.flash2": {8000: 2.0}}
    best, second, *_ = advise(Question(SIZES), near)
    assert (best.candidate.name, best.seconds, best.measured) == ("standard attention", 1.0, "numpy.standard")
    assert (second.candidate.name, second.seconds) == ("FlashAttention", 2.0)
    assert advise(Question(SIZES), {"numpy.standard": {8000: 1.0}})[0].candidate.name == "FlashAttention"  # the other was not
    far = {"numpy.standard": {512: 1.0}, "numpy.flash2": {512: 2.0}}
    assert advise(Question(SIZES), far)[0].candidate.name == "FlashAttention"


def test_the_command_says_what_to_take_and_why(tmp_path):
    done = attest("--task", "decode", "--quality", "recall", "--length", 4096)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("take multi-query attention: one key/value head for all; but ")
    done = attest("--memory", 1e-6)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (1, "nothing fits")
    found = json.loads(attest("--json").stdout)["advice"]
    assert [one["name"] for one in found][0] == "FlashAttention"
    assert len(found) == len(CANDIDATES)


def test_measurements_come_from_a_benchmark(tmp_path):
    bench = tmp_path / "bench.json"
    measure = ["bench", "numpy.flash2", "--length", "64", "--runs", "1", "--json", str(bench)]
    assert CliRunner().invoke(main, measure).exit_code == 0
    done = attest("--length", 64, "--measured", bench)
    assert (done.exit_code, " ms " in done.stdout.splitlines()[1] + " ") == (0, True), done.output


def test_the_page_is_written(tmp_path):
    page = tmp_path / "guide.md"
    assert attest("--markdown", page).exit_code == 0
    text = page.read_text()
    assert all(candidate.name in text for candidate in CANDIDATES)
    assert "| 8192 | at most 1 GiB | nothing | nothing | multi-query attention |" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "sing"), "task='sing', but should be one of train, prefill, decode"),
        (("--quality", "good"), "quality='good', but should be one of exact, close, recall, trained"),
        (("--length", 0), "length=0, but should be at least 1"),
        (("--memory", "-1"), "memory=-1 MiB, but should be greater than 0"),
        (("--measured", "/nowhere/x.json"), "measured file '/nowhere/x.json' cannot be read: No such file or directory"),
        (("--measured", __file__), "but should be what 'attest bench --json' writes"),
    ],
)
def test_what_is_wrong_with_a_question_is_one_sentence(words, said):
    done = attest(*words)
    assert (done.exit_code, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.output
