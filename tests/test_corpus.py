"""The corpus: every wrong kernel is refuted and every odd but right one certified, with the default settings.

Kernels of one backend share a worker within a test process, so that PyTorch is imported once and not three hundred times.
ATTEST_CORPUS_SEEDS=0,1,2 runs more seeds than the first, ATTEST_CORPUS_EXAMPLES=500 the full number of cases for the
right kernels.
"""

import os
import tomllib
from functools import cache
from pathlib import Path

import pytest

from conformance.hunting.hunt import Hunt
from conformance.hunting.search import Effort
from conformance.isolation.sandbox import Sandbox

CORPUS = Path(__file__).with_name("mutants")
SEEDS = [int(seed) for seed in os.environ.get("ATTEST_CORPUS_SEEDS", "0").split(",")]
RIGHT_EXAMPLES = int(os.environ.get("ATTEST_CORPUS_EXAMPLES", "25"))


def dtypes_of(folder, position, entry):
    """Each right kernel in one of its dtypes, in turn, unless the full corpus is asked for."""
    dtypes = entry["dtypes"]
    if entry.get("together"):
        return [tuple(dtypes)]
    return dtypes if folder != "right" or "ATTEST_CORPUS_EXAMPLES" in os.environ else [dtypes[position % len(dtypes)]]


def entries(*folders):
    for folder in folders:
        with (CORPUS / folder / "corpus.toml").open("rb") as file:
            for position, entry in enumerate(tomllib.load(file)["kernel"]):
                for dtype in dtypes_of(folder, position, entry):
                    for seed in SEEDS:
                        name = "-".join(
                            [folder, entry["file"].removesuffix(".py"), *([dtype] if isinstance(dtype, str) else dtype), str(seed)]
                        )
                        yield pytest.param(folder, entry, dtype, seed, id=name)


@cache
def sandbox_for(backend):
    return Sandbox()


def hunt(folder, entry, dtype, effort):
    sandbox = sandbox_for(entry["backend"])
    target = f"{CORPUS / folder / entry['file']}:{entry['function']}"
    [implementation] = sandbox.load(target, method=entry["method"], backend=entry["backend"])
    for one in [dtype] if isinstance(dtype, str) else dtype:
        result = Hunt(implementation, one, sandbox, effort).run()
        if result.verdict == "refuted":
            break
    return result


@pytest.mark.parametrize(("folder", "entry", "dtype", "seed"), list(entries("numpy_wrong", "torch_wrong")))
def test_a_wrong_kernel_is_refuted(folder, entry, dtype, seed):
    result = hunt(folder, entry, dtype, Effort(seed=seed, diagnose=False))
    assert result.verdict == "refuted", entry["mistake"]


@pytest.mark.parametrize(("folder", "entry", "dtype", "seed"), list(entries("right")))
def test_an_odd_but_right_kernel_is_not_refuted(folder, entry, dtype, seed):
    result = hunt(folder, entry, dtype, Effort(examples=RIGHT_EXAMPLES, seed=seed, diagnose=False))
    assert result.verdict != "refuted", (entry["oddity"], result.findings)
    assert result.worst_ratio < 1


def test_every_kernel_of_the_corpus_is_listed():
    for folder in ("numpy_wrong", "torch_wrong", "right"):
        listed = {param.values[1]["file"] for param in entries(folder)}
        assert listed == {path.name for path in (CORPUS / folder).glob("*.py")}


def test_the_corpus_is_as_large_as_it_is_said_to_be():
    wrong = {param.values[1]["file"]: param.values[1] for param in entries("numpy_wrong", "torch_wrong")}
    assert len(wrong) >= 300
    assert sum(entry["subtle"] for entry in wrong.values()) >= len(wrong) / 2
    assert len({param.values[1]["file"] for param in entries("right")}) >= 70
