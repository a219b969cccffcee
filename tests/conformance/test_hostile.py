"""Kernels that fight back: each gets its right verdict, leaves no process behind and the results of others intact."""

import os
import tomllib
from functools import cache
from pathlib import Path

import pytest

from conformance.errors import UsageError
from conformance.hunt import Effort, Hunt
from conformance.sandbox import Limits, Sandbox

HOSTILE = Path(__file__).parents[1] / "mutants" / "hostile"
with (HOSTILE / "corpus.toml").open("rb") as file:
    KERNELS = tomllib.load(file)["kernel"]

LIMITS = Limits(seconds=2.0, first_seconds=20.0, memory=1 << 30)
TOKEN = "ATTEST_TEST_OF_HOSTILE_KERNELS"


@pytest.fixture(scope="module", autouse=True)
def _marked_processes():
    os.environ[TOKEN] = str(os.getpid())
    yield
    for backend in ("numpy", "torch"):
        sandbox_for(backend).stop()
    assert not running()
    del os.environ[TOKEN]


def running():
    """Processes that inherited this module's mark."""
    mark, found = f"{TOKEN}={os.getpid()}".encode(), []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path("/proc", process, "environ").read_bytes().split(b"\0"):
                found.append(Path("/proc", process, "cmdline").read_bytes())
        except OSError:
            continue
    return found


@cache
def sandbox_for(backend):
    return Sandbox(LIMITS)


def hunt(entry, effort):
    sandbox = sandbox_for(entry["backend"])
    if entry["backend"] == "numpy":
        sandbox.restart()  # what one kernel does to its process is none of the next one's business
    [implementation] = sandbox.load(f"{HOSTILE / entry['file']}:{entry['function']}", method=entry["method"], backend=entry["backend"])
    return Hunt(implementation, "float32", sandbox, effort).run()


def chosen(condition):
    return [pytest.param(entry, id=entry["file"].removesuffix(".py")) for entry in KERNELS if condition(entry)]


@pytest.mark.parametrize("entry", chosen(lambda entry: entry.get("kinds")))
def test_a_hostile_kernel_is_refuted_for_what_it_does(entry):
    result = hunt(entry, Effort(examples=60, diagnose=False))
    assert result.verdict == "refuted", entry["trick"]
    [(finding, _)] = result.findings
    assert finding.kind in entry["kinds"], finding.message
    assert finding.message.isprintable()
    assert len(finding.message) < 4000


@pytest.mark.parametrize("entry", chosen(lambda entry: entry.get("kinds") == []))
def test_what_a_kernel_may_do_is_not_held_against_it(entry):
    result = hunt(entry, Effort(examples=12, diagnose=False))
    assert result.verdict != "refuted", result.findings[0][0]
