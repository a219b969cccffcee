"""The text that a person reads, held as snapshots: a change of wording is seen and meant (pytest --snapshot-update).

Verdicts are made by hand, so that no change of the generators moves their text; findings are those of single cases.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from conformance.cases import parse_case
from conformance.certificate import Certificate
from conformance.cli import main
from conformance.hunting.hunt import HuntResult
from conformance.judge import Finding
from conformance.registry import Implementation
from conformance.report import console
from oracle.readings.contract import CONTRACTS

CASE = "attention float32 b=1 h=1 l={l} d=1 g=1 s=2 e=1 {options} q=normal(0) k=normal(0) v=normal(0)"
IMPLEMENTATION = Implementation(
    "mine.flash", "attention", "numpy", "my_kernel.py:flash", options=("causal", "scale"), conventions={"empty_row": "nan"},
    restrictions={"s > 0": "it needs a key"}, layout="b l h d", description="mine, in tiles",
)  # fmt: skip
FINDING = Finding(
    "wrong-value", parse_case(CASE.format(l=1, options="causal=True")),
    "out[0, 0, 0, 0] is 0.125, but should be -0.0031 within 8.7e-08; 1 of 1 elements are wrong",
    "out[0, 0, 0, 0]", 0.125, -0.0031, 8.7e-08, 1.47e6,
)  # fmt: skip


def result(verdict, **fields):
    coverage = Counter({"causal": 250})
    return HuntResult(verdict, CONTRACTS["float32"], IMPLEMENTATION, 500, 7.5, 0.125, str(FINDING.case), coverage=coverage, **fields)


VERDICTS = {
    "certified": result("certified", ruled_out=["scale-twice", "causal-top-left"], isolates_nan=True),
    "refuted": result(
        "refuted", seconds_to_finding=0.25,
        findings=[(FINDING, ["follows convention causal_alignment=top-left; declare it if that is meant", "causal-top-left"])],
    ),
    "inconclusive": result(
        "inconclusive", ruled_out=["scale-twice"], isolates_nan=False,
        not_ruled_out=["unstable-softmax", "stale-accumulator (tile 16)", "stale-accumulator (tile 32)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_text_of_a_verdict(verdict, capsys, snapshot):
    with console.Display() as display:
        display.watcher.finished(Certificate("mine.flash", IMPLEMENTATION, "float32", result=VERDICTS[verdict]))
    assert capsys.readouterr().out == snapshot


def test_the_text_of_an_error(snapshot):
    done = CliRunner().invoke(main, ["certify", "no_such_file.py:kernel"])
    assert (done.exit_code, done.stdout, done.stderr) == snapshot


@pytest.mark.parametrize(
    ("kernel", "length", "options"),
    [
        pytest.param("right", 1, "causal=True", id="passes"),
        pytest.param("top_left", 1, "causal=True", id="wrong-value"),
        pytest.param("unstable", 1, "scale=90000.0", id="nan"),
        pytest.param("drops_an_axis", 1, "", id="shape"),
        pytest.param("raises", 3, "", id="exception"),
        pytest.param("segfaults", 3, "", id="crash"),
    ],
)
def test_the_text_of_a_replay(kernel, length, options, monkeypatch, snapshot):
    monkeypatch.chdir(Path(__file__).parent)
    line = " ".join(CASE.format(l=length, options=options).split())
    done = CliRunner().invoke(main, ["replay", f"target=kernels.py:{kernel} backend=numpy {line}"])
    assert masked(done.output) == snapshot


def masked(text):
    """Numbers to three digits, for the last ones are the machine's; tracebacks without what moves or is Python's."""
    text = re.sub(r"\n +\|[ ^~]+(?=\n)", "", text)
    text = re.sub(r"-?\d+\.\d{3,}(e[-+]\d+)?", lambda number: f"{float(number[0]):.3g}", text)
    return re.sub(r'File "[^"]*?(\w+\.py)", line \d+', r'File "\1"', text)


def test_the_text_of_the_list(capsys, snapshot):
    console.show_list([IMPLEMENTATION], [("broken.package", "ImportError: no module named 'nowhere'")])
    assert capsys.readouterr().out == snapshot


def test_the_text_of_an_explanation(snapshot):
    text = CliRunner().invoke(main, ["explain", "merge_attention_states"]).output
    assert text.partition("\nknown mistakes\n")[0] == snapshot  # what follows is the pitfalls' and the oracle's own text
