"""Claims: published figures as they are declared in claims.toml, and when a number of ours agrees with one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from conformance.errors import UsageError

__all__ = ["MEANINGS", "Claim", "agrees", "chosen_claims", "claims"]

MEANINGS = ("equals", "about", "at least", "at most", "below")


@dataclass(frozen=True)
class Claim:
    """One published figure; the head of claims.toml says what each attribute is."""

    name: str
    statement: str
    source: str
    means: str
    unit: str
    formula: str
    experiment: str
    figure: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, float] = field(default_factory=dict)
    remark: str = ""

    def __post_init__(self) -> None:
        if self.means not in MEANINGS:
            raise ValueError(f"means={self.means!r} of claim {self.name}, but should be one of {', '.join(MEANINGS)}")


@cache
def claims() -> tuple[Claim, ...]:
    """All of them, in the order of the file."""
    found = tomllib.loads(files("conformance.claims").joinpath("claims.toml").read_text(encoding="utf-8"))["claim"]
    return tuple(Claim(**one) for one in found)


def chosen_claims(patterns: Sequence[str]) -> list[Claim]:
    """The claims whose names match one of some shell patterns; all where there are none.

    Raises:
        UsageError: a pattern matches none.
    """
    known = claims()
    for pattern in patterns:
        if not any(fnmatchcase(claim.name, pattern) for claim in known):
            raise UsageError(f"claim={pattern!r}, but should match one of {', '.join(claim.name for claim in known)}")
    return [claim for claim in known if not patterns or any(fnmatchcase(claim.name, pattern) for pattern in patterns)]


def agrees(means: str, figure: str, value: float) -> bool:
    """Whether a number agrees with a printed one, whose last digit says how precisely it is meant."""
    printed, own = Decimal(figure), Decimal(value)
    half = Decimal(1).scaleb(int(printed.as_tuple().exponent)) / 2
    if means == "about":
        digit = Decimal(1).scaleb(printed.adjusted())
        return own >= round(printed / digit) * digit - digit / 2
    if means == "below":
        return own < printed
    return {"equals": abs(own - printed) <= half, "at least": own >= printed - half, "at most": own <= printed + half}[means]
