"""The command line, as typed: exit codes, one sentence on stderr, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).with_name("kernels.py")


def attest(*arguments, cwd=None):
    return subprocess.run([sys.executable, "-m", "conformance", *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


def test_certify_exits_0_and_writes_the_certificate(tmp_path):
    done = attest("certify", f"{KERNELS}:right", "--max-examples", 150, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CERTIFIED" in done.stdout
    document = json.loads((tmp_path / "out.json").read_text())
    [result] = document["results"]
    assert document["schema"] == 1
    assert result["verdict"] == "certified"
    assert result["worst_ratio"] < 1
    assert result["options"].keys() == {"mask", "bias", "causal", "window", "softcap", "scale", "sinks"}
    assert document["environment"]["packages"]["numpy"]


def test_a_finding_exits_1_and_its_line_replays(tmp_path):
    done = attest("certify", f"{KERNELS}:top_left", "--max-examples", 80, "--json", "-")
    assert done.returncode == 1
    finding = json.loads(done.stdout)["results"][0]["findings"][0]
    assert {"kind", "case", "where", "got", "expected", "budget", "ratio", "explained_by", "replay"} <= finding.keys()
    again = attest("replay", finding["replay"])
    assert again.returncode == 1, again.stdout + again.stderr
    assert "FAILS" in again.stdout
    other = attest("replay", finding["case"], "--target", f"{KERNELS}:right")
    assert other.returncode == 0, other.stdout + other.stderr
    assert "PASSES" in other.stdout


def test_nothing_is_coloured_when_piped():
    assert "\x1b" not in attest("certify", f"{KERNELS}:unstable", "--max-examples", 40).stdout


@pytest.fixture(scope="module")
def broken_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    (folder / "syntax.py").write_text("def kernel(q, k, v:\n    return v\n")
    (folder / "importing.py").write_text("import no_such_package_at_all\n")
    (folder / "exiting.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "dying.py").write_text("import os\nos.abort()\n")
    (folder / "empty.py").write_text("")
    return folder


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("certify", "no.such.name"), "target='no.such.name', but should be a registered name"),
        (("certify", "no_such_file.py:kernel"), "target file 'no_such_file.py' does not exist"),
        (("certify", "syntax.py:kernel"), "syntax.py has a syntax error in line 1"),
        (("certify", "importing.py:kernel"), "importing.py cannot be imported: ModuleNotFoundError"),
        (("certify", "exiting.py:kernel"), "exiting.py cannot be imported: SystemExit: 3"),
        (("certify", "dying.py:kernel"), "dying.py:kernel cannot be imported: the process was killed by SIGABRT"),
        (("certify", "empty.py"), "empty.py registers nothing"),
        (("certify", f"{KERNELS}:missing"), "has no 'missing'; it has right"),
        (("certify", f"{KERNELS}:not_a_function"), "not_a_function is int, but should be a function"),
        (("certify", f"{KERNELS}:wrong_signature", "--method", "attention"), "but should take (q, k, v) as attention does"),
        (("certify", f"{KERNELS}:unknown_keyword", "--method", "attention"), "has the keyword 'dropout', which attention does not have"),
        (("certify", f"{KERNELS}:right", "--method", "atention"), "method='atention', but should be one of"),
        (("certify", f"{KERNELS}:right", "--backend", "cupy"), "backend='cupy', but should be one of numpy, torch"),
        (("certify", f"{KERNELS}:right", "--dtype", "float8"), "dtype='float8', but should be one of float64"),
        (("certify", f"{KERNELS}:right", "--contract", "bfloat16"), "contract='bfloat16', but should be one of float32"),
        (("certify", f"{KERNELS}:right", "--convention", "causal_alignment"), "but should be NAME=VALUE"),
        (("certify", f"{KERNELS}:right", "--convention", "alignment=left"), "convention='alignment', but should be one of"),
        (("certify", f"{KERNELS}:right", "--convention", "causal_alignment=left"), "causal_alignment='left', but should be one of"),
        (("certify", f"{KERNELS}:right", "--layout", "b h l"), "layout='b h l', but should be an order of the axes"),
        (("certify", f"{KERNELS}:right", "--restrict", "heads == 1"), "names 'heads', but should use only"),
        (("certify", f"{KERNELS}:right", "--restrict", "h = 1"), "but should be an expression such as"),
        (("certify", f"{KERNELS}:right", "--restrict", "h < 0"), "exclude practically every case"),
        (("certify", f"{KERNELS}:right", "--device", "cuda"), "device='cuda'"),
        (("certify", f"{KERNELS}:right", "--max-examples", "0"), "max-examples=0, but should be greater than 0"),
        (("certify", f"{KERNELS}:right", "--json", "no/such/folder/out.json"), "json file 'no/such/folder/out.json' cannot be written"),
        (("replay", "attention float32 b=1 h=3 l=1 d=1 g=2 s=1 e=1 q=normal(0) k=normal(0) v=normal(0)"), "should satisfy h % g == 0"),
        (("explain", "atention"), "method='atention', but should be one of"),
        (("replay", "attention float32 b=1"), "is missing, but should be given"),
        (("replay", "nonsense"), "but should name a method"),
        (("replay", "attention float32 b=1 h=1 l=1 d=1 g=1 s=1 e=1 q=normal(0) k=normal(0) v=normal(0)"), "names no target"),
        (("replay", "attention float32 b=1 h=1 l=1 d=1 g=1 s=1 e=1 q=weird(0) k=normal(0) v=normal(0)"), "its recipe should be one of"),
    ],
)
def test_a_mistake_of_the_user_is_one_clear_sentence_and_exit_2(arguments, sentence, broken_files):
    done = attest(*arguments, cwd=broken_files)
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_list_names_methods_and_implementations():
    listed = json.loads(attest("list", "--json").stdout)
    assert {"attention", "attention_with_lse", "merge_attention_states"} <= listed["methods"].keys()
    assert "numpy.flash2" in {implementation["name"] for implementation in listed["implementations"]}
    text = attest("list").stdout
    assert "numpy.flash2" in text


def test_explain_shows_the_specification_and_the_known_mistakes():
    text = attest("explain", "attention").stdout
    for part in ("q: b h l d", "arXiv:1706.03762", "causal_alignment: bottom-right, top-left", "mask-then-normalise"):
        assert part in text


def test_the_help_imports_neither_torch_nor_hypothesis():
    code = (
        "import sys\nfrom conformance.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'hypothesis', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout
