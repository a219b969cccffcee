"""The example of a third party's package, installed as a user would and found through its entry point."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "examples" / "attest_example_kernels"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which pip has installed the package, without a network and away from the environment."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PACKAGE, folder / "source")  # building leaves files beside the source
    target = folder / "target"
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
        "--no-build-isolation", "--target", str(target), str(source),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return target


def run(target, *arguments):
    path = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=target.parent, env={**os.environ, "PYTHONPATH": path})


def test_it_is_listed(installed):
    done = run(installed, "conformance", "list", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert not [source for source, _ in listed["problems"] if source.startswith("attest_example")]
    [found] = [one for one in listed["implementations"] if one["name"] == "example.tiled"]
    assert (found["method"], found["dtypes"], list(found["tunables"])) == ("attention", ["float32", "float64"], ["block_k"])


def test_it_is_certified_by_its_name(installed):
    done = run(installed, "conformance", "certify", "example.tiled", "--dtype", "float32", "--max-examples", 60, "--json", "-")
    assert done.returncode == 0, done.stdout + done.stderr
    [result] = json.loads(done.stdout)["results"]
    assert (result["name"], result["verdict"]) == ("example.tiled", "certified")
