"""A method of a user's own, in a file outside this repository, as docs/own_method.md tells it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.errors import UsageError
from conformance.methods import resolve_method

DOCUMENT = Path(__file__).parents[2] / "docs" / "own_method.md"
METHOD = "sigmoid_attention.py:sigmoid_attention"


@pytest.fixture
def folder(tmp_path):
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)[1]
        (tmp_path / name).write_text(block)
    return tmp_path


def attest(folder, *words):
    return subprocess.run([sys.executable, "-m", "conformance", *words], cwd=folder, capture_output=True, text=True)


def test_its_implementations_are_certified_and_refuted_and_its_mistake_is_named(folder):
    kernels = "my_kernels.py:with_sigmoid", "my_kernels.py:with_softmax"
    done = attest(folder, "certify", *kernels, "--method", METHOD, "--max-examples", "100", "--json", "-")
    right, wrong = json.loads(done.stdout)["results"]
    assert (right["verdict"], right["method"]) == ("certified", "sigmoid_attention"), done.stderr
    assert right["ruled_out"] == ["weights-normalised"]
    assert wrong["verdict"] == "refuted"
    [finding] = wrong["findings"]
    assert any("weights-normalised" in words for words in finding["explained_by"])
    assert done.returncode == 1


def test_its_finding_replays_from_its_line(folder):
    done = attest(folder, "certify", "my_kernels.py:with_softmax", "--method", METHOD, "--max-examples", "100", "--json", "-")
    [finding] = json.loads(done.stdout)["results"][0]["findings"]
    again = subprocess.run(
        f"{sys.executable} -m conformance {finding['replay'].removeprefix('attest ')}",
        shell=True, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 1, again.stderr
    assert finding["message"] in " ".join(again.stdout.split())


def test_it_is_explained(folder):
    done = attest(folder, "explain", METHOD)
    assert done.returncode == 0, done.stderr
    assert "weights-normalised" in done.stdout


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("sigmoid_attention", "method='sigmoid_attention', but should be one of"),
        ("sigmoid_attention.py:other", r"one of the methods that sigmoid_attention\.py declares with oracle\.method \(sigmoid_attention\)"),
        ("my_kernels.py", r"should name one of the methods that my_kernels\.py declares with oracle\.method \(none\)"),
        ("missing.py:method", "does not exist"),
    ],
)
def test_a_reference_that_names_no_method_is_told_so(folder, monkeypatch, reference, words):
    done = attest(folder, "certify", "my_kernels.py:with_sigmoid", "--method", reference)
    assert done.returncode == 2
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.chdir(folder)
    if reference == "sigmoid_attention":
        with pytest.raises(UsageError, match=words):
            resolve_method(reference)
