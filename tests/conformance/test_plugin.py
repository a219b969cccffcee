"""The pytest plugin as another project uses it: kernels certified by tests, registered implementations as test items, JSON for CI."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

KERNELS = """
import numpy as np
import pytest


def kernel(outs, lses):
    largest = lses.max(axis=0, keepdims=True)
    shares = np.exp(lses - np.where(np.isinf(largest), 0, largest))
    total = shares.sum(axis=0)
    out = (np.where(shares[..., None] > 0, outs, 0) * shares[..., None]).sum(axis=0) / np.where(total == 0, 1, total)[..., None]
    with np.errstate(divide="ignore"):
        return out.astype(outs.dtype), (np.log(total) + largest[0]).astype(lses.dtype)


def forgets_the_shift(outs, lses):
    out, lse = kernel(outs, lses)
    return out, lse - np.where(np.isinf(lses), 0, lses).max(axis=0)
"""
TESTS = {
    "right": 'attest_certify("merge_attention_states", kernel, backend="numpy", dtypes=["float32"])',
    "wrong": 'attest_certify("merge_attention_states", forgets_the_shift, backend="numpy", dtypes=["float32"])',
    "local": 'attest_certify("merge_attention_states", lambda outs, lses: outs, backend="numpy")',
    "method": 'attest_certify("merged", kernel, backend="numpy")',
    "neither": "attest_certify()",
    "keyword": 'attest_certify("merge_attention_states", kernel, backend="numpy", contracts="float32")',
}


def run(folder, *options, file="test_kernels.py"):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options, file]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path):
    def write(*names):
        tests = "".join(f"\n\ndef test_{name}(attest_certify):\n    {TESTS[name]}\n" for name in names)
        (tmp_path / "test_kernels.py").write_text(KERNELS + tests)
        (tmp_path / "pyproject.toml").write_text("[tool.attest]\nmax-examples = 60\ndatabase = 'none'\n")
        return tmp_path

    return write


def test_a_right_kernel_passes_and_a_wrong_one_fails_with_its_finding_and_its_replay_line(project):
    folder = project("right", "wrong")
    code, text = run(folder, "--attest-json", "certificates", "--junitxml", "report.xml")
    assert code == 1
    assert "1 failed, 1 passed" in text
    assert "REFUTED" in text
    assert "attest replay 'target=" in text
    assert "Traceback" not in text
    [right, wrong] = sorted((folder / "certificates").iterdir())
    for path, verdict in ((right, "certified"), (wrong, "refuted")):
        [result] = json.loads(path.read_text())["results"]
        assert result["verdict"] == verdict
    attached = [json.loads(entry.get("value")) for entry in ElementTree.parse(folder / "report.xml").iter("property")]
    assert {result["verdict"] for [result] in attached} == {"certified", "refuted"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("local", "should be a function at the top level of a module, or a target such as path/file.py:function"),
        ("method", "method='merged', but should be one of"),
        ("neither", "attest_certify should get a kernel or a target, one of the two"),
        ("keyword", "contracts"),
    ],
)
def test_what_is_wrong_with_a_call_is_said_in_a_sentence(project, name, words):
    code, text = run(project(name))
    assert code == 1
    assert words in text
    assert "Traceback" not in text


def test_every_registered_implementation_in_each_dtype_is_a_test_of_its_own_in_parallel_too(tmp_path):
    (tmp_path / "test_kernels.py").write_text(
        "import pytest\n\n\n"
        '@pytest.mark.attest(method="merge_attention_states", backend="numpy")\n'
        "def test_all(attest_certify, attest_target):\n"
        "    attest_certify(target=attest_target)\n"
    )
    code, text = run(tmp_path, "-n", "2", "-vv", "--attest-max-examples", "15", "--attest-budget", "60", "--attest-seed", "3")
    assert "test_all[numpy.merge float32]" in text
    assert "test_all[numpy.merge bfloat16]" in text
    # So few cases may leave mistakes that are not ruled out; none may be found.
    assert "REFUTED" not in text
    assert code in (0, 1)


def test_options_go_before_the_settings_of_the_project(project):
    folder = project("right")
    run(folder, "--attest-max-examples", "10", "--attest-json", "certificates")
    [path] = (folder / "certificates").iterdir()
    [result] = json.loads(path.read_text())["results"]
    assert result["examples"] < 60


def test_a_wrong_setting_of_the_project_is_named(project):
    folder = project("right")
    (folder / "pyproject.toml").write_text("[tool.attest]\nmax_examples = 60\n")
    code, text = run(folder)
    assert code == 1
    assert "tool.attest.max_examples" in text
    assert "should be one of max-examples, budget, seed, database, dtypes" in text
