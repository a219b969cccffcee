"""The benchmark: every implementation at every length in one run, with what compares them; never how long anything takes."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from conformance.benching.calls import benched_case
from conformance.benching.run import COLUMNS, Bench, bench
from conformance.cli import main
from conformance.errors import UsageError
from conformance.registry import Implementation
from oracle import METHODS

KERNELS = """
import numpy as np


def slow_start(q, k, v):
    raise MemoryError("too many tokens")


def wrong(q, k, v):
    return np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
"""
SIZES = {"b": 1, "h": 2, "g": 1, "d": 8, "e": 8}


@pytest.fixture(scope="module")
def steps():
    return []


@pytest.fixture(scope="module")
def measured(steps):
    request = Bench(("numpy.flash2", "numpy.linear", "torch.sdpa"), lengths=(32, 64), heads=2, kv_heads=1, width=8, runs=3)
    return bench(request, lambda *step: steps.append(step))


def test_lengths_take_turns_and_every_step_is_told(measured, steps):
    """A machine that is slower for a while is so for both lengths of a doubling ratio."""
    assert [step[1:] for step in steps] == [(done, 16) for done in range(1, 17)], "five first calls at each length, three turns of each"
    assert [what for what, *_ in steps[-4:]] == [f"turn {turn} of round {number}" for turn in (2, 3) for number in (1, 2)]


def test_ratios_are_those_of_turns(measured):
    short, long = (next(row for row in measured if (row.name, row.length) == ("numpy.flash2", length)) for length in (32, 64))
    assert long.doubling == np.median(np.divide(long.runs, short.runs))


def test_every_implementation_is_measured_at_every_length_beside_standard_attention(measured):
    names = ["torch.standard", "numpy.standard", "numpy.flash2", "numpy.linear", "torch.sdpa"]
    assert {(row.name, row.length) for row in measured} == {(name, length) for name in names for length in (32, 64)}
    for row in measured:
        assert row.error == ""
        assert len(row.runs) == 3
        assert row.seconds == np.median(row.runs) > 0
        assert row.speed > 0
        assert row.logits_bytes == 2 * row.length**2 * 4
        assert row.peak_bytes is None or row.peak_bytes >= 0
        assert (row.doubling is None) == (row.length == 32)
    assert all(row.speed == 1 for row in measured if row.name.endswith(".standard"))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_codes_of_four_bits_are_measured_packed_as_they_are_called(backend):
    *_, row = bench(Bench((f"{backend}.dequantize_microscaling",), lengths=(16,), width=32, runs=1))
    assert (row.method, row.error, row.relative_error) == ("dequantize_microscaling", "", 0.0)


def test_accuracy_is_that_of_the_dtype(measured):
    assert all(1e-9 < row.relative_error < 1e-5 for row in measured)


def test_a_kernel_that_fails_has_its_reason_in_the_table_and_the_others_their_numbers(tmp_path):
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)
    rows = bench(Bench((f"{path}:slow_start", f"{path}:wrong"), method="attention", backend="numpy", lengths=(16,), runs=1))
    standard, failed, wrong = rows
    assert failed.error == "MemoryError: too many tokens"
    assert failed.seconds is None
    assert (standard.error, wrong.error, wrong.relative_error) == ("", "", 1.0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"lengths": (0,)}, "lengths=0, but should be at least one number of at least 1"),
        ({"lengths": ()}, "lengths=none"),
        ({"runs": 0}, "runs=0, but should be at least 1"),
        ({"heads": 3, "kv_heads": 2}, "heads=3, but should be a multiple of kv-heads=2"),
        ({"targets": ("nothing.like_it",)}, "nothing.like_it"),
        ({"dtype": "float8", "targets": ("numpy.flash2",)}, "no implementation fits the request in float8"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(asked, words):
    with pytest.raises(UsageError, match=words):
        bench(Bench(**{"targets": ("numpy.flash2",), **asked}))


def test_restrictions_are_kept():
    refuses = Implementation("any", "attention", "numpy", "any:any", restrictions={"h == g": "one head each"})
    with pytest.raises(UsageError, match="takes no plain call of length 16"):
        benched_case(refuses, "float32", 16, SIZES)
    assert benched_case(refuses, "float32", 16, {**SIZES, "g": 2}).dims["g"] == 2


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.subject == "function"])
def test_a_call_of_every_method_can_be_made_at_any_length(method):
    anything = Implementation("any", method, "numpy", "any:any", options=METHODS[method].keywords)
    for length in (1, 64, 1024):
        case = benched_case(anything, "float32", length, SIZES)
        assert METHODS[method].check(case.arguments()) == dict(case.dims)
        assert case.dims.get("l", length) == length


def test_the_command_writes_a_table_json_csv_and_plots(tmp_path):
    files = {kind: tmp_path / f"bench.{kind}" for kind in ("json", "csv", "svg")}
    options = ["--json", files["json"], "--csv", files["csv"], "--plot", files["svg"]]
    command = ["bench", "numpy.flash2", "--length", "16", "--length", "32", "--runs", "2", *options]
    done = CliRunner().invoke(main, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    assert "numpy.flash2" in done.output
    document = json.loads(files["json"].read_text())
    assert [row["length"] for row in document["rows"]] == [16, 16, 32, 32]
    assert {"environment", "settings", "schema"} <= set(document)
    [heads, *rows] = csv.reader(files["csv"].read_text().splitlines())
    assert (tuple(heads), len(rows)) == (COLUMNS, 4)
    assert files["svg"].read_text().lstrip().startswith("<?xml")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured():
    done = CliRunner().invoke(main, ["bench", "numpy.flash2", "--csv", "/nowhere/bench.csv"])
    assert (done.exit_code, "csv file '/nowhere/bench.csv' cannot be written" in done.stderr) == (2, True)
