"""The command line, as typed: exit codes, one sentence on stderr, JSON."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from conformance.cli import main
from conformance.isolation.sandbox import Sandbox
from conformance.registry import Implementation

KERNELS = Path(__file__).with_name("kernels.py")
SIGNATURES = Path(__file__).with_name("signatures.py")
ONE = "attention float32 b=1 h=1 l=1 d=1 g=1 s=1 e=1 q=normal(0) k=normal(0) v=normal(0)"


def attest(*arguments, cwd=None, env=None):
    command = [sys.executable, "-m", "conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})})


@pytest.fixture
def attest_here(capsys, monkeypatch):
    """The command line in this process, where it starts sooner; an exception that it lets through is one here."""

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments], prog_name="attest")
        written = capsys.readouterr()
        return SimpleNamespace(returncode=end.value.code, stdout=written.out, stderr=written.err)

    return run


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


def test_a_finding_exits_1_and_its_line_replays(tmp_path, attest_here):
    done = attest("certify", f"{KERNELS}:top_left", "--max-examples", 80, "--json", "-")
    assert done.returncode == 1
    finding = json.loads(done.stdout)["results"][0]["findings"][0]
    assert {"kind", "case", "where", "got", "expected", "budget", "ratio", "explained_by", "replay"} <= finding.keys()
    again = attest("replay", finding["replay"])
    assert again.returncode == 1, again.stdout + again.stderr
    assert "FAILS" in again.stdout
    other = attest_here("replay", finding["case"], "--target", f"{KERNELS}:right", cwd=tmp_path)
    assert other.returncode == 0, other.stdout + other.stderr
    assert "PASSES" in other.stdout


def test_nothing_is_coloured_when_piped():
    assert "\x1b" not in attest("certify", f"{KERNELS}:unstable", "--max-examples", 40).stdout


@pytest.fixture(scope="module")
def broken_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    (folder / "syntax.py").write_text("def kernel(q, k, v:\n    return v\n")
    (folder / "importing.py").write_text("import no_such_package_at_all\n")
    (folder / "raising.py").write_text("raise RuntimeError('no device:\\n  look\\n  here')\n")
    (folder / "exiting.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "dying.py").write_text("import os\nos.abort()\n")
    (folder / "empty.py").write_text("")
    (folder / "notes.txt").write_text("def kernel(q, k, v):\n    return v\n")
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("certify", "no.such.name"), "target='no.such.name', but should be a registered name"),
        (("certify", "a name with spaces"), "target='a name with spaces', but should be a registered name"),
        (("certify", ""), "target='', but should be a registered name"),
        (("certify", "no_such_file.py:kernel"), "target file 'no_such_file.py' does not exist"),
        (("certify", "../no/../such.py:kernel"), "target file '../no/../such.py' does not exist"),
        (("certify", "C:\\kernels\\flash.py:kernel"), "target file 'C:\\\\kernels\\\\flash.py' does not exist"),
        (("certify", "C:\\kernels\\flash:kernel"), "target file 'C:\\\\kernels\\\\flash' does not exist"),
        (("certify", "notes.txt:kernel"), "target file 'notes.txt' is no .py file, but should be a Python file"),
        (("certify", "./notes.txt:kernel"), "target file './notes.txt' is no .py file, but should be a Python file"),
        (("certify", "folder"), "target file 'folder' is a folder, but should be a Python file"),
        (("certify", "folder:kernel"), "target file 'folder' is a folder, but should be a Python file"),
        (("certify", "./folder/"), "target file './folder/' is a folder, but should be a Python file"),
        (("certify", "empty.py:"), "target='empty.py:', but should be a registered name"),
        (("certify", "empty.py::kernel"), "target='empty.py::kernel', but should be a registered name"),
        (("certify", ":kernel"), "target=':kernel', but should be a registered name"),
        (("certify", "empty.py:kernel"), "empty.py has no 'kernel'; it has no function"),
        (("certify", "no_such_module:kernel"), "no_such_module cannot be imported: ModuleNotFoundError"),
        (("certify", "syntax.py:kernel"), "syntax.py has a syntax error in line 1"),
        (("certify", "importing.py:kernel"), "importing.py cannot be imported: ModuleNotFoundError"),
        (("certify", "raising.py:kernel"), "raising.py cannot be imported: RuntimeError: no device:"),
        (("certify", "exiting.py:kernel"), "exiting.py cannot be imported: SystemExit: 3"),
        (("certify", "dying.py:kernel"), "dying.py:kernel cannot be imported: the process was killed by SIGABRT"),
        (("certify", "empty.py"), "empty.py registers nothing"),
        (("certify", f"{KERNELS}:missing"), "has no 'missing'; it has right"),
        (("certify", f"{KERNELS}:not_a_function"), "not_a_function is int, but should be a function"),
        (("certify", f"{KERNELS}:wrong_signature", "--method", "attention"), "but should take (q, k, v) as attention does"),
        (("certify", f"{KERNELS}:unknown_keyword", "--method", "attention"), "has the keyword 'dropout', which attention does not have"),
        (("certify", f"{SIGNATURES}:Layer"), "Layer is a class, but should be a function or an instance: put 'kernel = Layer(...)'"),
        (("certify", f"{SIGNATURES}:Layer", "--method", "attention"), "Layer is a class, but should be a function or an instance"),
        (("certify", f"{SIGNATURES}:keys_first", "--method", "attention"), "takes (k, q, v), but should take (q, k, v) in this order"),
        (("certify", f"{SIGNATURES}:mask_first", "--method", "attention"), "takes (mask, q, k), but should take (q, k, v) in this order"),
        (("certify", f"{SIGNATURES}:position_only"), "takes causal by position only, but should take it by keyword"),
        (("certify", f"{SIGNATURES}:strangers"), "takes (a, b, c, *, causal=False), which tells no method, but --method should"),
        (("certify", f"{SIGNATURES}:dropping"), "has the keyword 'dropout', which attention does not have"),
        (("certify", f"{SIGNATURES}:wrapped", "--option", "mask"), "which takes causal and no **kwargs"),
        (("certify", f"{SIGNATURES}:named_and_anything", "--option", "maks"), "option='maks', but should be one of mask, bias"),
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
        (("certify", f"{KERNELS}:right", "--restrict", "softcap > 0"), "condition='softcap > 0' cannot be evaluated with softcap=None"),
        (("certify", f"{KERNELS}:right", "--device", "cuda"), "device='cuda'"),
        (("certify", f"{KERNELS}:right", "--budget", "-1"), "budget=-1.0, but should be greater than 0"),
        (("certify", f"{KERNELS}:right", "--budget", "nan"), "budget=nan, but should be greater than 0"),
        (("certify", f"{KERNELS}:right", "--seed", "-1"), "seed=-1, but should be 0 or greater"),
        (("certify", f"{KERNELS}:right", "--max-examples", "0"), "max-examples=0, but should be greater than 0"),
        (("certify", f"{KERNELS}:right", "--json", "no/such/folder/out.json"), "json file 'no/such/folder/out.json' cannot be written"),
        (("replay", "attention float32 b=1 h=3 l=1 d=1 g=2 s=1 e=1 q=normal(0) k=normal(0) v=normal(0)"), "should satisfy h % g == 0"),
        (("explain", "atention"), "method='atention', but should be one of"),
        (("replay", "attention float32 b=1"), "is missing, but should be given"),
        (("replay", "nonsense"), "but should name a method"),
        (("replay", ""), "but should name a method"),
        (("replay", f"'{ONE}"), "but its quotes should match"),
        (("replay", f"target= {ONE}"), "names no target"),
        (("replay", ONE.replace("b=1", "b=-1")), "describes no call of attention"),
        (("replay", ONE.replace("b=1", "b=99999999999999")), "describes no call of attention"),
        (("replay", ONE.replace("q=normal(0)", "q=normal(0)*--")), "has a part that cannot be read"),
        (("replay", ONE.replace("q=normal(0)", "q=full(0)")), "case part 'q=full(0)', but its recipe should be one of normal, "),
        (("replay", f"target={KERNELS}:right what {ONE}"), "convention='what', but should be one of"),
        (("replay", f"target={KERNELS}:right {ONE} what=3"), "case part 'what=3', but should be a tunable of"),
        (("replay", f"target={KERNELS}:right {ONE} mask=full(0)"), "the case sets mask, but should set only what"),
        (("replay", f"target={SIGNATURES}:anything {ONE} causal=True", "--method", "attention"), "declare it with --option"),
        (("replay", ONE), "names no target"),
        (("replay", "attention float32 b=1 h=1 l=1 d=1 g=1 s=1 e=1 q=weird(0) k=normal(0) v=normal(0)"), "its recipe should be one of"),
    ],
)
def test_a_mistake_of_the_user_is_one_clear_sentence_and_exit_2(arguments, sentence, broken_files, attest_here):
    done = attest_here(*arguments, cwd=broken_files)
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_mistake_leaves_no_traceback(broken_files):
    done = attest("certify", "dying.py:kernel", "syntax.py", "--convention", "what", cwd=broken_files)
    assert done.returncode == 2
    assert "what" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_mistake_leaves_the_certificates_of_an_earlier_run(broken_files, attest_here, tmp_path):
    (tmp_path / "out.json").write_text("earlier")
    attest_here("certify", f"{KERNELS}:right", "--seed", "-1", "--json", tmp_path / "out.json", cwd=broken_files)
    assert (tmp_path / "out.json").read_text() == "earlier"


@pytest.mark.parametrize("target", ["inner/../my kernels.py:wrapped", "my kernels.py:wrapped", "inner.kernels:wrapped", "C:/a.py:wrapped"])
def test_a_target_is_found_by_any_path_to_it(target, tmp_path, attest_here):
    for place in ("my kernels.py", "inner/kernels.py", "C:/a.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        shutil.copy(SIGNATURES, tmp_path / place)
    (tmp_path / "inner" / "__init__.py").touch()
    done = attest_here("replay", f"{ONE} causal=True", "--target", target, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_target_that_cannot_be_loaded_leaves_the_others_certified(tmp_path, attest_here):
    asked = ("certify", "no_such_file.py:kernel", f"{KERNELS}:right", "--max-examples", 150, "--json", tmp_path / "out.json")
    done = attest_here(*asked, cwd=tmp_path)
    assert done.returncode == 2
    assert "no_such_file.py" in done.stderr
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [result["verdict"] for result in results] == ["error", "certified"]


def test_a_dtype_given_twice_is_certified_once(attest_here, tmp_path):
    done = attest_here("certify", f"{KERNELS}:returns_a_list", "--dtype", "float64", "--dtype", "float64", cwd=tmp_path)
    assert done.stdout.count("REFUTED") == 1


def test_hidden_options_are_named_until_they_are_declared(attest_here, tmp_path):
    target = f"{SIGNATURES}:named_and_anything"
    asked = ("certify", target, "--max-examples", 1, "--json", "out.json")
    assert "takes **kwargs: judged with scale and without mask, bias, causal" in attest_here(*asked, cwd=tmp_path).stdout
    declared = attest_here(*asked, "--option", "causal", "--option", "softcap", cwd=tmp_path)
    assert "judged with causal, softcap, scale and without mask, bias, window, sinks" in declared.stdout
    [result] = json.loads((tmp_path / "out.json").read_text())["results"]
    assert {option for option, count in result["options"].items() if count is not None} == {"causal", "softcap", "scale"}
    assert "without mask, bias, window, sinks" in result["notes"][0]


def test_a_finding_with_a_declared_option_replays(attest_here, tmp_path):
    asked = ("certify", f"{SIGNATURES}:anything", "--method", "attention", "--option", "scale", "--json", "-")
    finding = json.loads(attest_here(*asked, cwd=tmp_path).stdout)["results"][0]["findings"][0]
    assert "scale=" in finding["case"]
    again = attest_here("replay", finding["replay"], cwd=tmp_path)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "FAILS" in again.stdout


def test_an_entry_point_that_cannot_be_loaded_is_named_and_the_others_are_certified(tmp_path):
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[attest.implementations]\naaa = no_such_module\nbbb = exiting_module\n")
    (tmp_path / "exiting_module.py").write_text("raise SystemExit('no device')\n")
    places = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    asked = ("--method", "merge_attention_states", "--backend", "numpy", "--dtype", "float32", "--max-examples", 2)
    done = attest("certify", *asked, "--json", tmp_path / "out.json", env={"PYTHONPATH": places})
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot load no_such_module: ModuleNotFoundError" in done.stderr
    assert "cannot load exiting_module: SystemExit: no device" in done.stderr
    assert "numpy.merge" in done.stdout
    assert [source for source, _ in json.loads((tmp_path / "out.json").read_text())["problems"]][:2] == ["no_such_module", "exiting_module"]


def test_filters_that_leave_nothing_are_one_clear_sentence(attest_here, monkeypatch, tmp_path):
    monkeypatch.setattr(Sandbox, "discover", lambda sandbox: ([Implementation("a", "attention", "numpy", "a:b")], []))
    done = attest_here("certify", "--backend", "torch", "--method", "attention", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("attest: no registered implementation has method='attention' and backend='torch', but one should")


def test_a_worker_that_dies_of_an_entry_point_is_one_clear_sentence(attest_here, tmp_path, monkeypatch):
    package = tmp_path / "dying-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: dying\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[attest.implementations]\naaa = dying_module\n")
    (tmp_path / "dying_module.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    done = attest_here("list", cwd=tmp_path)
    assert done.returncode == 2
    assert "the registered implementations cannot be loaded: the process was killed by SIGABRT" in done.stderr


def _children(parent):
    """Processes that a process has started, by /proc/PID/stat: the number of the parent stands behind the state."""
    found = []
    for process in Path("/proc").glob("[0-9]*/stat"):
        try:
            behind_name = process.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(behind_name[1]) == parent:
            found.append(process.parent)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_ctrl_c_exits_130_and_keeps_the_certificates_that_were_reached(tmp_path):
    targets = (f"{KERNELS}:returns_a_list", f"{KERNELS}:right")
    command = [sys.executable, "-m", "conformance", "certify", *targets, "--max-examples", "100000", "--budget", "600"]
    hunting = subprocess.Popen(
        [*command, "--json", str(tmp_path / "out.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a suite in the background may ignore
    )  # fmt: skip
    printed = ""
    while "replay" not in printed:
        printed += hunting.stdout.readline()
    while not (workers := [worker for child in _children(hunting.pid) for worker in (child, *_children(int(child.name)))])[1:]:
        time.sleep(0.02)  # the process that workers are forked off, and one of them
    hunting.send_signal(signal.SIGINT)
    out, err = hunting.communicate(timeout=60)
    assert hunting.returncode == 130
    assert "REFUTED" in printed
    assert "CERTIFIED" not in out
    assert err.strip() == "attest: interrupted"
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["interrupted"] is True
    assert [result["verdict"] for result in document["results"]] == ["refuted"]
    deadline = time.monotonic() + 30
    while any(worker.exists() for worker in workers):  # one that had just been started ends by itself
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_list_names_methods_and_implementations(attest_here, monkeypatch, tmp_path):
    listed = json.loads(attest("list", "--json").stdout)
    assert {"attention", "attention_with_lse", "merge_attention_states"} <= listed["methods"].keys()
    assert "numpy.flash2" in {implementation["name"] for implementation in listed["implementations"]}
    found = [Implementation.from_json(implementation) for implementation in listed["implementations"]]
    monkeypatch.setattr(Sandbox, "discover", lambda sandbox: (found, []))
    assert "numpy.flash2" in attest_here("list", cwd=tmp_path).stdout


def test_explain_shows_the_specification_and_the_known_mistakes(attest_here, tmp_path):
    text = attest_here("explain", "attention", cwd=tmp_path).stdout
    names = "mask_rank, bias_rank: number of axes where passed, else None"
    for part in ("q: b h l d", "arXiv:1706.03762", "causal_alignment: bottom-right, top-left", "mask-then-normalise", names, "contiguous:"):
        assert part in text


def test_the_help_imports_neither_torch_nor_hypothesis():
    code = (
        "import sys\nfrom conformance.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'hypothesis', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout
