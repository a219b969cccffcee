"""Studies of the benchmark: what their tables hold, on few tokens; never how long anything takes."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from conformance.benching.run import Bench
from conformance.benching.studies import STUDIES, speculative, study_named
from conformance.benching.studies.balance import train
from conformance.benching.studies.chebyshev import chebyshev_error
from conformance.benching.studies.speculative import Models, simulated_tokens
from conformance.cli import main
from oracle.decoding_speed import expected_tokens


def attest(*words):
    return CliRunner().invoke(main, ["bench", *map(str, words)])


def ran(name, **settings):
    return study_named(name).run(Bench(**settings), lambda what, done, total: None)


def test_every_study_has_a_module_and_a_note():
    assert all(study_named(name).note for name in STUDIES)


def test_decoding_is_measured_for_every_kind_of_heads_beside_the_size_of_its_cache():
    table = ran("decode", targets=("numpy.contiguous_cache", "torch.paged_cache"), lengths=(8,), width=4, runs=1)
    assert [(row["cache"], row["kind"]) for row in table] == [
        (name, kind) for name in ("numpy.contiguous_cache", "torch.paged_cache") for kind in ("mha", "gqa", "mqa")
    ]
    assert [row["kv heads"] for row in table[:3]] == [8, 2, 1]
    # 4 requests of 8 tokens, keys and values of 4 float32 numbers a head.
    assert [row["cache MiB"] * 2**20 for row in table[:3]] == [4 * 8 * 2 * 4 * 4 * heads for heads in (8, 2, 1)]
    assert all(row["tokens/s"] > 0 for row in table)
    assert table[0]["over mha"] == 1


def test_the_auxiliary_loss_evens_out_what_experts_get():
    without, with_it = (train(alpha, experts=4, tokens=128, steps=150) for alpha in (0.0, 1.0))
    assert without["variation"] > 1 > 0.5 > with_it["variation"]
    assert without["loss"] > with_it["loss"]
    assert without["dropped"] > with_it["dropped"]
    assert with_it["unused experts"] == 0
    assert all(0 < one["task error"] < 1 for one in (without, with_it))


def test_drafts_give_as_many_tokens_as_the_theorem_says():
    assert simulated_tokens(0.7, 3, 4000) == pytest.approx(expected_tokens(0.7, 3), abs=5 * 1.5 / 4000**0.5)
    assert (simulated_tokens(1.0, 3, 5), simulated_tokens(0.0, 3, 5)) == (4, 1)


def test_decoding_with_drafts_follows_the_distribution_of_the_target():
    models = Models(width=16, hidden=64, layers=1, vocabulary=8)
    target, draft = models.target(np.arange(8)), models._blurred
    assert np.allclose(target.sum(axis=1), 1) and np.allclose(draft.sum(axis=1), 1)
    table = speculative._run(Bench(runs=1), lambda what, done, total: None, models, tokens=300)
    assert [row["drafted"] for row in table] == list(speculative.DRAFTED)
    overlap = np.minimum(target, draft).sum(axis=1)
    for row in table:
        assert overlap.min() - 0.1 < row["acceptance"] <= 1  # of the tokens that were met, in whatever proportion
        assert row["by the theorem"] == expected_tokens(row["acceptance"], row["drafted"])
        assert 1 <= row["tokens a round"] <= row["drafted"] + 1
        assert row["accepted / (1 + drafted)"] < 1
        assert row["speed-up"] > 0


def test_the_error_of_chebyshev_attention_falls_with_the_degree():
    errors = [chebyshev_error(degree, 4.0, keys=32, width=16, seeds=1) for degree in (4, 6, 8, 10, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.01


def test_both_loop_orders_are_measured_in_every_tile():
    table = ran("loops", lengths=(16,), width=4, runs=1, threads=1, backend="numpy")
    assert [(row["loop"], row["tile"]) for row in table] == [
        (loop, tile) for loop in ("keys outside", "queries outside") for tile in (64, 128, 256)
    ]
    assert all(row["ms"] > 0 and row["over keys outside"] > 0 and row["over fewest threads"] == 1 for row in table)
    assert all(row["over keys outside"] == 1 for row in table[:3])


def test_a_study_is_a_table_json_and_csv(tmp_path):
    files = {kind: tmp_path / f"study.{kind}" for kind in ("json", "csv")}
    done = attest("--study", "chebyshev", "--length", 16, "--width", 8, "--json", files["json"], "--csv", files["csv"])
    assert done.exit_code == 0, done.output
    assert "logits within 4" in done.stdout
    rows = json.loads(files["json"].read_text())["rows"]
    assert [row["degree"] for row in rows] == [2, 4, 6, 8, 10, 12, 16, 24]
    heads, *lines = csv.reader(files["csv"].read_text().splitlines())
    assert (heads, len(lines)) == (list(rows[0]), len(rows))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--study", "nothing"), "study='nothing', but should be one of decode, balance, speculative, chebyshev, loops"),
        (("--study", "chebyshev", "--plot", "x.svg"), "plot is given with study, but should be given without"),
        (("--study", "decode", "--runs", "0"), "runs=0, but should be at least 1"),
        (("--study", "decode", "numpy.flash2"), "target='numpy.flash2', but should be a class of caches"),
        (("--study", "decode", "--dtype", "float7"), "dtype='float7', but should be one of"),
        (("--study", "loops", "--backend", "jax"), "backend='jax', but should be numpy or torch, and installed"),
        (("numpy.local_global", "--option", "window"), "option='window', but should be NAME=VALUE"),
        (("numpy.local_global", "--option", "windows=3"), "option='windows', but should be an option of a method"),
        (("numpy.local_global", "--option", "window=-3"), "window='-3', but should be an integer >= 0 [local_global_attention]"),
        (("numpy.local_global", "--option", "window=x"), "window='x', but should be a Python literal [local_global_attention]"),
    ],
)
def test_what_is_wrong_with_a_request_is_one_sentence(words, said):
    done = attest(*words)
    assert (done.exit_code, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.output


def test_options_reach_the_methods_that_have_them(tmp_path):
    done = attest("numpy.local_global", "--length", 8, "--runs", 1, "--option", "window=3", "--json", tmp_path / "bench.json")
    assert done.exit_code == 0, done.output
    standard, sparse = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert "window=3" in sparse["case"]
    assert "window" not in standard["case"]
