"""Adapters to other packages: all are declared and expected, and those whose package is here do as expected.toml says.

Where a package is missing its tests are skipped with that reason; tox has an environment for each group.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from conformance.certify import Request, certify
from conformance.hunting.hunt import Effort
from conformance.replay import replay

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "implementations" / "thirdparty"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRIES = {entry["name"]: entry for entry in tomllib.loads((FOLDER / "expected.toml").read_text())["implementation"]}
REFUTED = [name for name, entry in ENTRIES.items() if entry["verdict"] == "refuted"]
A_LOOK = Effort(examples=8, seconds=20.0, seed=0, diagnose=False)


def registered_in_source():
    """Names of implementations, by module, read without importing any."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        keywords = [keyword for call in calls if getattr(call.func, "id", "") == "register" for keyword in call.keywords]
        names = [keyword.value.value for keyword in keywords if keyword.arg == "name"]
        if names:
            found[path.stem] = names
    return found


def needs(entry):
    try:
        version(entry["package"])
    except PackageNotFoundError:
        pytest.skip(f"{entry['package']} is not installed: pip install 'attest-attention[thirdparty-{entry['group']}]'")


def target(name):
    module = next(module for module, names in registered_in_source().items() if name in names)
    return f"implementations.thirdparty.{module}:{name}"


def test_everything_registered_is_expected_and_the_other_way_round():
    assert sorted(name for names in registered_in_source().values() for name in names) == sorted(ENTRIES)
    assert len(ENTRIES) >= 25
    assert len({entry["package"] for entry in ENTRIES.values()}) >= 12


def test_each_module_is_an_entry_point_behind_the_extra_that_brings_its_package():
    points = {name: value for name, value in PROJECT["entry-points"]["attest.implementations"].items() if name.startswith("thirdparty.")}
    assert sorted(points) == sorted(f"thirdparty.{module}" for module in registered_in_source())
    for module, names in registered_in_source().items():
        [group] = {ENTRIES[name]["group"] for name in names}
        assert points[f"thirdparty.{module}"] == f"implementations.thirdparty.{module}:__all__ [thirdparty-{group}]"
        brought = [re.split(r"[<>=\[]", requirement)[0] for requirement in PROJECT["optional-dependencies"][f"thirdparty-{group}"]]
        assert {ENTRIES[name]["package"] for name in names} <= set(brought)


@pytest.mark.parametrize("name", REFUTED)
def test_a_refutation_is_judged_and_says_what_is_left(name):
    entry = ENTRIES[name]
    assert entry["judgement"] in ("bug", "difference", "numeric limit")
    assert entry["explanation"].strip() and entry["documented"].strip() and "assert" in entry["reproduce"] or "raises" in entry["reproduce"]
    assert "see" not in entry or ENTRIES[entry["see"]]["verdict"] == "certified"


@pytest.mark.parametrize("name", REFUTED)
def test_a_finding_is_brought_about_without_attest(name):
    needs(ENTRIES[name])
    exec(compile(ENTRIES[name]["reproduce"], name, "exec"), {})


@pytest.mark.parametrize("name", REFUTED)
def test_a_finding_is_found_again(name):
    needs(ENTRIES[name])
    judgement, _ = replay(ENTRIES[name]["case"], target(name), Request())
    assert judgement.finding is not None
    assert judgement.finding.kind == ENTRIES[name]["kind"]


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry["verdict"] == "certified"])
def test_a_look_at_what_is_certified_finds_nothing(name):
    needs(ENTRIES[name])
    [certificate] = certify(Request(targets=(target(name),), dtypes=("float32",), effort=A_LOOK))
    assert certificate.verdict in ("certified", "inconclusive"), certificate.to_json()["findings"]


@pytest.fixture
def optional_package(tmp_path):
    """A distribution with an entry point behind an extra that brings itself, and one behind an extra that is not installed."""
    package = tmp_path / "adapting-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: adapting\nVersion: 1.0\nProvides-Extra: here\nProvides-Extra: away\n"
        'Requires-Dist: adapting; extra == "here"\nRequires-Dist: no-such-distribution<2,>=1; extra == "away"\n'
    )
    (package / "entry_points.txt").write_text(
        "[attest.implementations]\nadapting.here = adapting_here:__all__ [here]\nadapting.away = adapting_away:__all__ [away]\n"
    )
    kernel = "def merge(outs, lses):\n    raise RuntimeError('called')\n"
    register = "@register('merge_attention_states', backend='numpy', name='adapting.here')\n"
    (tmp_path / "adapting_here.py").write_text("from conformance import register\n__all__ = ()\n\n" + register + kernel)
    (tmp_path / "adapting_away.py").write_text("import no_such_module\n")

    def attest(*arguments):
        places = os.pathsep.join([str(tmp_path), str(ROOT)])
        command = [sys.executable, "-m", "conformance", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": places})

    return attest


def test_what_is_behind_an_extra_is_listed_and_judged_only_where_it_is_named(optional_package):
    listed = optional_package("list")
    assert "adapting.here" in listed.stdout
    assert "adapting_away" not in listed.stdout + listed.stderr
    asked = ("--method", "merge_attention_states", "--backend", "numpy", "--dtype", "float32", "--max-examples", "2")
    everything = optional_package("certify", *asked)
    assert "numpy.merge" in everything.stdout
    assert "adapting" not in everything.stdout + everything.stderr
    named = optional_package("certify", "adapting.here", "--max-examples", "2")
    assert named.returncode == 1, named.stdout + named.stderr
    assert "RuntimeError: called" in named.stdout


def test_what_an_extra_lacks_is_said_where_it_is_asked_for(optional_package):
    assert "adapting[away]" in (told := optional_package("doctor")).stdout, told.stderr
    assert "not installed: no-such-distribution" in told.stdout
    assert "adapting[here]" not in told.stdout
    named = optional_package("certify", "adapting.away.kernel")
    assert named.returncode == 2
    assert "adapting.away.kernel cannot be loaded: adapting_away" in named.stderr
    assert "pip install 'adapting[away]'" in named.stderr
