"""The memory of failures: cases that refuted an implementation come first the next time, until they pass.

Kept by Hypothesis's own database, a directory: one folder for an implementation in one dtype, one file for a case.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase, InMemoryExampleDatabase

from conformance.cases.case import Case, CaseError, parse_case
from conformance.errors import UsageError
from conformance.registry import Implementation

__all__ = ["Memory"]


class Memory:
    """Remembers the failing cases of implementations from run to run.

    Args:
        folder: where; None to forget at the end of the run.

    Raises:
        UsageError: the folder is a file.
    """

    def __init__(self, folder: str | None = None) -> None:
        if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
            raise UsageError(f"database={folder!r} is a file, but should be a folder or 'none'")
        self._database: ExampleDatabase = InMemoryExampleDatabase() if folder is None else DirectoryBasedExampleDatabase(folder)

    def recall(self, implementation: Implementation, dtype: str) -> list[Case]:
        """Cases that refuted it before and that it can still be called with, smallest first."""
        found = []
        for line in self._database.fetch(_key(implementation, dtype)):
            try:
                case = parse_case(line.decode())
            except (CaseError, UnicodeDecodeError):  # written by another version
                continue
            if case.method == implementation.method and case.dtype == dtype and _can_call(implementation, case):
                found.append(case)
        return sorted(found, key=lambda case: (case.size, str(case)))

    def remember(self, implementation: Implementation, dtype: str, refuting: Case | None, passed: Iterable[Case]) -> None:
        """Keep the case that refuted, and drop those that pass by now."""
        key = _key(implementation, dtype)
        for case in passed:
            self._database.delete(key, str(case).encode())
        if refuting is not None:
            self._database.save(key, str(refuting).encode())


def _can_call(implementation: Implementation, case: Case) -> bool:
    required = {spec.name for spec in case.specification.positional}
    taken = {*case.options, *case.arrays} - required <= set(implementation.options)
    fits = case.consistent and set(case.tunables) <= set(implementation.tunables)  # what a method asks for may have changed
    return taken and fits and implementation.admits(case.facts()) and implementation.tunes(case.tunables)


def _key(implementation: Implementation, dtype: str) -> bytes:
    return f"{implementation.target} {implementation.method} {dtype}".encode()
