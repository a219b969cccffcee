"""The kernels of tests/mutants, for the studies: what is listed of each, and a hunt of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.hunting.hunt import Effort, Hunt, HuntResult
from conformance.isolation.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "tests" / "mutants"
WRONG = ("numpy_wrong", "torch_wrong")
RIGHT = ("right",)


@dataclass(frozen=True)
class Kernel:
    """A kernel of the corpus, to be run in some of its dtypes: one after the other where the mistake needs several."""

    folder: str
    entry: dict[str, Any]
    dtypes: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.folder}/{self.entry['file'].removesuffix('.py')}"

    @property
    def target(self) -> str:
        return f"{MUTANTS / self.folder / self.entry['file']}:{self.entry['function']}"

    @property
    def method(self) -> str:
        return self.entry["method"]

    @property
    def backend(self) -> str:
        return self.entry["backend"]


def kernels(*folders: str, every_dtype: bool = False) -> Iterator[Kernel]:
    """Wrong kernels in their first dtype, right ones in one of theirs in turn, or each in all of its dtypes."""
    for folder in folders:
        with (MUTANTS / folder / "corpus.toml").open("rb") as file:
            for position, entry in enumerate(tomllib.load(file)["kernel"]):
                dtypes = entry["dtypes"]
                if entry.get("together"):
                    yield Kernel(folder, entry, tuple(dtypes))
                elif every_dtype:
                    yield from (Kernel(folder, entry, (dtype,)) for dtype in dtypes)
                else:
                    yield Kernel(folder, entry, (dtypes[position % len(dtypes) if folder in RIGHT else 0],))


class Hunter:
    """Hunts kernels of the corpus; those of one backend share a worker. Use as a context manager."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._sandboxes: dict[str, Sandbox] = {}

    def __enter__(self) -> Hunter:
        return self

    def __exit__(self, *_: object) -> None:
        for sandbox in self._sandboxes.values():
            sandbox.__exit__()

    def hunt(self, kernel: Kernel) -> HuntResult:
        """The hunt that refutes, or the last one."""
        sandbox = self._sandboxes.setdefault(kernel.backend, Sandbox())
        [implementation] = sandbox.load(kernel.target, method=kernel.method, backend=kernel.backend)
        for dtype in kernel.dtypes:
            result = Hunt(implementation, dtype, sandbox, self.effort).run()
            if result.verdict == "refuted":
                break
        return result
