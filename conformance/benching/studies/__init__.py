"""Studies: measurements that are no call of a kernel after another, each a module that makes one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from conformance.benching.measuring import Step
from conformance.benching.run import Bench
from conformance.errors import UsageError

__all__ = ["STUDIES", "Study", "Table", "study_named"]

Table = list[dict[str, Any]]

# What each is about; the module of that name has `study`.
STUDIES: Mapping[str, str] = {
    "decode": "tokens a second and size of the cache with as many, fewer and one key/value head",
    "balance": "how evenly experts are used, with and without the loss that is to make them so",
    "speculative": "speed of decoding with drafts, measured and by the theorem",
    "chebyshev": "error of Chebyshev attention against softmax attention, by degree",
    "loops": "the two loop orders of FlashAttention by tile and threads",
}


@dataclass(frozen=True)
class Study:
    """One table.

    Attributes:
        run: makes it, from the settings of a benchmark; told of every step.
        note: what its columns are.
    """

    run: Callable[[Bench, Step], Table]
    note: str


def study_named(name: str) -> Study:
    """A study, imported when it is asked for.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in STUDIES:
        raise UsageError(f"study={name!r}, but should be one of {', '.join(STUDIES)}")
    found: Study = import_module(f"conformance.benching.studies.{name}").study
    return found
