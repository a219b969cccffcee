"""Adapters to other packages: all are declared and expected, and those whose package is here do as expected.toml says.

Where a package is missing its tests are skipped with that reason; tox has an environment for each group.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from conformance.certify import Request, certify
from conformance.errors import UsageError
from conformance.hunting.hunt import Effort
from conformance.isolation.sandbox import Sandbox
from conformance.registry import Implementation
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


LOADED = """
import json
from conformance.errors import UsageError
from conformance.loading import discover, lacking, load

def refused(name):
    try:
        load(name)
    except UsageError as error:
        return str(error)

early = refused("adapting.away.kernel")
found, problems = discover()
print(json.dumps({
    "optional": [one.implementation.name for one in found if one.implementation.optional],
    "usual": [one.implementation.name for one in found if not one.implementation.optional],
    "problems": [one.source for one in problems],
    "lacking": {one.source: one.reason for one in lacking()},
    "refused": early,
}))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What loading says beside a distribution with an entry point behind an extra that is here, and others whose extra is not."""
    folder = tmp_path_factory.mktemp("adapting")
    package = folder / "adapting-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: adapting\nVersion: 1.0\nProvides-Extra: here\nProvides-Extra: away\n"
        'Requires-Dist: adapting; extra == "here"\nRequires-Dist: no-such-distribution<2,>=1; extra == "away"\n'
    )
    (package / "entry_points.txt").write_text(
        "[attest.implementations]\nadapting.here = adapting_here:__all__ [here]\nadapting.away = adapting_away:__all__ [away]\n"
        "adapting.broken = adapting_here.no_module_of_its_own:__all__ [here]\n"
    )
    register = "@register('merge_attention_states', backend='numpy', name='adapting.here')\n"
    kernel = "def merge(outs, lses):\n    return outs[0], lses[0]\n"
    (folder / "adapting_here.py").write_text("from conformance import register\n__all__ = ()\n\n" + register + kernel)
    (folder / "adapting_away.py").write_text("import no_such_module\n")
    places = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": places}, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_behind_an_extra_is_optional(loaded):
    assert "adapting.here" in loaded["optional"]
    assert "numpy.merge" in loaded["usual"]
    assert all(name.startswith(("adapting.", "thirdparty.")) for name in loaded["optional"])


def test_a_package_that_is_not_installed_is_no_problem_but_a_broken_module_is(loaded):
    problems = [source for source in loaded["problems"] if source.startswith("adapting")]
    assert problems == ["adapting_here.no_module_of_its_own:__all__ [here]"]


def test_what_an_extra_lacks_is_said_where_it_is_asked_for(loaded):
    assert loaded["lacking"]["adapting[away]"] == "not installed: no-such-distribution"
    assert "adapting[here]" not in loaded["lacking"]
    assert "adapting.away.kernel cannot be loaded: adapting_away:__all__ [away] fails with ModuleNotFoundError" in loaded["refused"]
    assert "pip install 'adapting[away]'" in loaded["refused"]


def test_what_is_optional_is_judged_only_where_it_is_named(monkeypatch):
    usual = Implementation("usual", "merge_attention_states", "numpy", "no_such_module:usual")
    found = [usual, replace(usual, name="optional", target="no_such_module:optional", optional=True)]
    monkeypatch.setattr(Sandbox, "discover", lambda sandbox: (found, []))
    assert [certificate.target for certificate in certify(Request())] == ["usual"]
    monkeypatch.setattr(Sandbox, "discover", lambda sandbox: (found[1:], []))
    with pytest.raises(UsageError, match="no registered implementation"):
        certify(Request())
