"""What people expect of a command line tool: settings of the project, a doctor, quiet output, annotations for GitHub, no colour."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from conformance.cli import main
from conformance.errors import UsageError
from conformance.settings import project_settings

KERNELS = Path(__file__).with_name("kernels.py").resolve()
WRONG = (f"{KERNELS}:strided_first_head", "--method", "strided_attention", "--backend", "numpy", "--dtype", "float32", "--database", "none")


def attest(*arguments, folder=None, **variables):
    command = [sys.executable, "-m", "conformance", *map(str, arguments)]
    root = str(KERNELS.parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_settings_of_the_nearest_project_hold(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.attest]\nseed = 7\nmax-examples = 20\n")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    assert project_settings(tmp_path / "deep" / "er") == {"seed": 7, "max-examples": 20}
    (tmp_path / "deep" / "pyproject.toml").write_text("[project]\nname = 'inner'\n")
    assert project_settings(tmp_path / "deep" / "er") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = 'one'", "tool.attest.seed='one' in .*, but should be an integer"),
        ("seed = true", "but should be an integer"),
        ("dtypes = [1]", "but should be a list of dtypes"),
        ("examples = 3", "tool.attest.examples in .* is unknown, but should be one of max-examples"),
        ("seed =", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, words):
    (tmp_path / "pyproject.toml").write_text(f"[tool.attest]\n{text}\n")
    with pytest.raises(UsageError, match=words):
        project_settings(tmp_path)


def test_the_command_line_goes_before_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.attest]\ndtypes = ['float31']\n")
    done = CliRunner().invoke(main, ["certify", "numpy.merge"])
    assert (done.exit_code, "dtype='float31'" in done.stderr) == (2, True)
    done = CliRunner().invoke(main, ["certify", "numpy.merge", "--dtype", "float30"])
    assert (done.exit_code, "dtype='float30'" in done.stderr) == (2, True)


def test_a_wrong_kernel_is_annotated_for_github_and_counted_when_quiet():
    done = attest("certify", *WRONG, "--github", "--quiet")
    assert done.returncode == 1
    *shown, annotation = done.stdout.splitlines()
    assert shown[-1] == "1 refuted"
    assert annotation.startswith(f"::error file={KERNELS},title=attest%3A ")
    assert "%0Aattest replay 'target=" in annotation


def test_quiet_says_nothing_of_what_is_certified():
    done = attest("certify", "numpy.merge", "--dtype", "float32", "--max-examples", "150", "--quiet", "--database", "none")
    assert (done.returncode, done.stdout) == (0, "1 certified\n")


def test_an_error_is_annotated_too():
    done = attest("certify", "nowhere.py:kernel", "--github")
    assert done.returncode == 2
    assert "::error file=nowhere.py,title=attest%3A nowhere.py%3Akernel error::target file 'nowhere.py' does not exist" in done.stdout


def test_no_colour_codes_are_piped_and_none_are_forced_with_no_color():
    for variables in ({}, {"NO_COLOR": "1", "FORCE_COLOR": ""}):
        done = attest("certify", *WRONG, **variables)
        assert "\x1b" not in done.stdout + done.stderr


def test_the_doctor_says_what_runs_here_and_why_the_rest_does_not():
    done = attest("doctor")
    assert done.returncode == 0, done.stdout
    lines = {line[5:].split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    assert lines["numpy"].startswith("yes")
    assert lines["numpy implementations"].startswith("yes")
    assert "torch on cuda" in lines
    if not lines["torch on cuda"].startswith("yes"):
        assert "cannot be used here" in lines["torch on cuda"] or "cannot be imported" in lines["torch on cuda"]


def test_the_doctor_names_a_wrong_setting_and_goes_on(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.attest]\nspeed = 1\n")
    done = attest("doctor", folder=tmp_path)
    assert done.returncode == 2
    assert "tool.attest.speed" in done.stdout
    assert "implementations" in done.stdout


def test_the_shell_completes_commands():
    done = attest("certify", _ATTEST_COMPLETE="bash_source")
    assert done.returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", "from conformance.cli import main; main(prog_name='attest')"],
        env={"_ATTEST_COMPLETE": "bash_complete", "COMP_WORDS": "attest doc", "COMP_CWORD": "1", "PYTHONPATH": str(KERNELS.parents[2])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "plain,doctor" in done.stdout
