"""Published figures: how they are declared, when a number agrees, and what experiments say; never how long anything takes."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from conformance.benching.run import Row
from conformance.claims.declared import Claim, agrees, chosen_claims, claims
from conformance.claims.document import markdown
from conformance.claims.experiments import EXPERIMENTS, Measurement
from conformance.claims.laboratory import Laboratory, lacking
from conformance.claims.verdicts import VERDICTS, Examined, examine, exit_code
from conformance.cli import main

FORMULAS = ("mla-cache", "memory-standard-32768", "chebyshev-10", "speculative-speedup")


def attest(*words):
    return CliRunner().invoke(main, ["claims", *map(str, words)])


def looked_into(*names, **settings):
    chosen = chosen_claims(names)
    return {one.claim.name: one for one in examine(chosen, Laboratory(chosen, runs=1, threads=1, **settings))}


@pytest.mark.parametrize(
    ("means", "figure", "value", "agreeing"),
    [
        ("equals", "0.342", 0.3424, True),
        ("equals", "0.342", 0.3426, False),
        ("equals", "64", 64.4, True),
        ("equals", "64", 67.1, False),
        ("equals", "2.1", 2.146, True),
        ("equals", "0.06", 0.0625, True),
        ("at least", "2.67", 2.666, True),
        ("at least", "2.67", 2.66, False),
        ("at most", "4.2", 4.24, True),
        ("at most", "4.2", 4.26, False),
        ("at most", "1.2e-6", 4e-7, True),
        ("at most", "1.2e-6", 1.3e-6, False),
        ("about", "57", 55.1, True),
        ("about", "57", 54.9, False),
        ("about", "57", 400.0, True),
        ("about", "160", 149.0, False),
        ("about", "160", 151.0, True),
        ("below", "1", 0.999, True),
        ("below", "1", 1.0, False),
    ],
)
def test_a_figure_is_meant_as_precisely_as_it_is_printed(means, figure, value, agreeing):
    assert agrees(means, figure, value) is agreeing


def test_every_claim_has_a_source_a_formula_and_an_experiment():
    names = [claim.name for claim in claims()]
    assert len(set(names)) == len(names) > 15
    for claim in claims():
        assert claim.statement and claim.source and claim.formula, claim.name
        assert claim.experiment in EXPERIMENTS, claim.name
    assert {claim.experiment for claim in claims()} == set(EXPERIMENTS)
    with pytest.raises(ValueError, match="means='roughly' of claim mine, but should be one of equals"):
        Claim("mine", "", "", "roughly", "", "", "speed")


@pytest.fixture
def benched(monkeypatch):
    """The requests of benchmarks, which are answered at once; `tests/conformance/test_bench.py` has real ones."""
    requests = []

    def answer(request, told):
        requests.append(request)
        rows = [Row(name, "attention", "numpy", "float32", length) for length in request.lengths for name in request.targets]
        for number, row in enumerate(rows):
            row.seconds, row.speed, row.peak_bytes, row.relative_error = 1.0, 3.0, 2**20, 1e-7
            row.doubling = 2.1 if row.length // 2 in request.lengths else None
            told(row, number + 1, len(rows))
        return rows

    monkeypatch.setattr("conformance.claims.laboratory.bench", answer)
    return requests


def test_every_experiment_can_be_made_on_few_tokens_and_gives_numbers(benched):
    steps = []
    found = looked_into(shrink=16, step=lambda *step: steps.append(step))
    assert len(found) == len(claims())
    for name, one in found.items():
        assert one.verdict in VERDICTS[:3], (name, one.reason)
        deciding = [each.value for each, agrees in zip(one.measurements, one.agreeing, strict=True) if agrees is not None]
        assert all(value > 0 for value in deciding), name
    [request] = benched  # one run, so that all ratios are of it
    assert request.lengths == (128, 256, 512)  # of 2048, 4096 and 8192; the doubling from 4096 is among them
    assert {"numpy.flash2", "torch.sdpa", "numpy.local_global", "torch.scalar_gated_linear"} < set(request.targets)
    assert steps[-1][1:] == (len(steps), len(steps))
    verdicts = {name: one.verdict for name, one in found.items()}
    assert (verdicts["flash-8192"], verdicts["sparse-8192"]) == ("reproduced", "not reproduced")
    assert (verdicts["doubling-quadratic"], verdicts["doubling-linear"]) == ("reproduced", "reproduced")
    assert verdicts["error-flash"] == "reproduced"
    assert [each.value for each in found["memory-flash-4096"].measurements] == [0.0625, 0.065536, 1.0]


def test_a_benchmark_is_of_what_the_claims_need(benched):
    looked_into("sparse-8192", shrink=8192)
    looked_into("doubling-linear", shrink=64)
    looked_into("mla-cache", "memory-standard-32768")
    [sparse, doubling] = benched
    assert (sparse.targets, sparse.lengths) == (("numpy.local_global", "torch.local_global"), (2,))
    assert doubling.lengths == (64, 128)


def test_what_follows_from_formulas_alone():
    found = looked_into(*FORMULAS)
    assert found["memory-standard-32768"].verdict == "reproduced"
    keys, both, rotary = (one.value for one in found["mla-cache"].measurements)
    assert (keys, both, round(rotary, 2)) == (8, 16, 14.22)
    assert found["mla-cache"].agreeing == (True, False, False)
    assert found["chebyshev-10"].agreeing == (True, True, True, True, False, False)
    # The claimed quotient is the theorem's where drafts cost as much as the target, and only there.
    assert found["speculative-speedup"].agreeing[:6] == (True, True, True, False, False, False)
    for played in found["speculative-speedup"].measurements[6:]:
        exact = float(played.what.rpartition("exactly ")[2].rstrip(")"))
        assert abs(played.value - exact) < 5 * 2 / 20000**0.5  # five standard deviations of at most 2 tokens


def test_memory_is_held_against_both_kinds_of_megabytes():
    figures = {
        "memory-flash-4096": "MiB (2^20 bytes)",
        "memory-sparse-4096": "MB (10^6 bytes)",
        "memory-standard-32768": "MiB (2^20 bytes)",
    }
    for name, unit in figures.items():
        [claim] = chosen_claims([name])
        given = {key: value for key, value in claim.given.items() if key != "implementation"}
        [one] = examine([replace(claim, given=given)], Laboratory([]))
        assert one.verdict == "reproduced", name
        assert [each.unit for each in one.measurements if each.decides] == [unit]


def test_the_errors_of_sparse_and_linear_attention_are_not_those_that_are_published():
    [claim] = chosen_claims(["error-sparse"])
    [one] = examine([claim], Laboratory([claim], shrink=4))
    # Of 131 of 512 keys, sqrt(1 / P - 1) = 1.7.
    assert all(1.2 < each.value < 2.2 for each in one.measurements)
    assert one.verdict == "not reproduced"


def test_what_a_machine_lacks_is_told():
    [claim] = chosen_claims(["flash-8192"])
    greedy = replace(claim, needs={"memory": 1e9})
    assert lacking(claim) == ""
    assert lacking(greedy).startswith("it needs 1000000000 MiB of memory, and this machine has ")
    [one] = examine([greedy], Laboratory([]))
    assert (one.verdict, one.measurements, one.reason) == ("cannot run here", (), lacking(greedy))
    nowhere = replace(claim, given={"length": 8, "implementations": ["torch.flash2"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("conformance.claims.laboratory.find_spec", lambda name: None)
        assert lacking(nowhere) == "none of torch.flash2 can run here"


def test_exit_codes():
    [claim] = chosen_claims(["mla-cache"])
    codes = {verdict: exit_code([Examined(claim, verdict)]) for verdict in VERDICTS}
    assert codes == {"reproduced": 0, "reproduced in part": 1, "not reproduced": 1, "cannot run here": 3}
    assert exit_code([Examined(claim, "cannot run here"), Examined(claim, "not reproduced")]) == 1


def test_a_number_that_could_not_be_had_decides_nothing():
    [claim] = chosen_claims(["flash-8192"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "speed", lambda laboratory, claim: [Measurement("it", None, why="too slow"), Measurement("other", 3.0)])
        [one] = examine([claim], Laboratory([]))
        assert (one.verdict, one.agreeing) == ("reproduced", (None, True))
        patch.setitem(EXPERIMENTS, "speed", lambda laboratory, claim: [Measurement("it", None, why="too slow")])
        [one] = examine([claim], Laboratory([]))
        assert (one.verdict, one.reason) == ("cannot run here", "too slow")


def test_the_command_prints_and_writes_what_was_found(tmp_path):
    page, numbers = tmp_path / "claims.md", tmp_path / "claims.json"
    done = attest("mla-cache", "memory-standard-32*", "--markdown", page, "--json", numbers)
    assert done.exit_code == 1, done.output
    assert "REPRODUCED IN PART mla-cache" in done.stdout
    assert "disagrees  keys and values over the latent row: 16 times" in done.stdout
    assert "1 reproduced, 1 reproduced in part" in done.stdout
    found = json.loads(numbers.read_text())
    assert [(one["name"], one["verdict"]) for one in found["claims"]] == [
        ("memory-standard-32768", "reproduced"),
        ("mla-cache", "reproduced in part"),
    ]
    assert found["claims"][1]["measurements"][1] | {"unit": ""} == {
        "what": "keys and values over the latent row", "value": 16.0, "figure": "", "decides": True, "unit": "", "why": "", "agrees": False,
    }  # fmt: skip
    assert "| [mla-cache](#mla-cache) | 8 times | keys alone over the latent row: 8 times; " in page.read_text()
    assert attest("memory-standard-32768").exit_code == 0
    assert json.loads(attest("memory-standard-32768", "--json", "-").stdout)["schema"] == 1


def test_the_list_looks_into_nothing():
    done = attest("--list", "error-*")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["error-flash", "error-sparse", "error-linear"]


def test_what_is_wrong_with_a_request_is_one_sentence():
    done = attest("nothing-*")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "claim='nothing-*', but should match one of flash-4096, " in done.stderr
    done = attest("mla-cache", "--runs", 0)
    assert (done.exit_code, done.stderr) == (2, "attest: runs=0, but should be at least 1\n")
    done = attest("mla-cache", "--json", "/nowhere/x.json")
    assert (done.exit_code, "json file '/nowhere/x.json' cannot be written" in done.stderr) == (2, True)


def test_a_page_tells_what_lacks():
    [claim] = chosen_claims(["flash-8192"])
    page = markdown([Examined(claim, "cannot run here", reason="it needs more")], runs=3, threads=1)
    assert "- cannot run here: it needs more" in page
    assert "| at least 2.87 times | it needs more | cannot run here |" in page
