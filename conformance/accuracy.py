"""How far an approximate method itself is from what it approximates: a figure of the method, not of an implementation.

A certificate says that an implementation computes its method. Whether the method is good enough is another question, for which a user
wants a number: what quantisation costs on a plain case that anyone can make again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from conformance.cases.case import ArrayRecipe, Case, plainest
from oracle import get_method

__all__ = ["OwnError", "own_errors"]

# Sizes of the stated case by letter: one that a reader knows, and large enough for the figures to be typical.
SIZES = {"b": 1, "h": 2, "g": 2, "l": 256, "s": 256, "d": 64, "e": 64}


@dataclass(frozen=True)
class OwnError:
    """The error of a method on a case.

    Attributes:
        case: as a line.
        against: what is approximated.
        relative_frobenius: norm of the error over that of what is approximated.
        cosine: of the angle between the two.
        worst_element: largest absolute error of an element.
        largest_element: largest magnitude of what is approximated.
    """

    case: str
    against: str
    relative_frobenius: float
    cosine: float
    worst_element: float
    largest_element: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.relative_frobenius:.2e} of {self.against} (Frobenius norm), cosine {self.cosine:.6f}, worst element "
            f"{self.worst_element:.2e} where the largest is {self.largest_element:.2e}"
        )


@lru_cache(maxsize=256)
def own_errors(method: str, dtype: str, options: tuple[str, ...]) -> tuple[OwnError, ...]:
    """The errors of a method for inputs of a dtype: one figure for each value of its first choice among options.

    Args:
        method: name; one that approximates nothing has no figures.
        dtype: in which the inputs are stored. The method is evaluated in float64.
        options: that an implementation takes.
    """
    specification = get_method(method)
    if specification.approximation is None:
        return ()
    choices = [(name, kind) for name, kind in specification.options.items() if isinstance(kind, tuple) and name in options]
    variants: list[dict[str, Any]] = [{name: value} for name, kind in choices[:1] for value in kind] or [{}]
    return tuple(_own_error(_stated(method, dtype, variant)) for variant in variants)


def _stated(method: str, dtype: str, options: dict[str, Any]) -> Case:
    """The plainest call with `SIZES`."""
    specification = get_method(method)
    dims = {letter: SIZES.get(letter, 1) for letter in specification.signature.dims}
    arrays = {
        spec.name: ArrayRecipe(plainest(specification, spec), position) for position, spec in enumerate(specification.signature.required)
    }
    return Case(method, dtype, dims, arrays, options).settled()


def _own_error(case: Case) -> OwnError:
    approximation = case.specification.approximation
    assert approximation is not None, "asked before"
    against, got, exact = approximation({name: _wide(value) for name, value in case.arguments().items()})
    error = got - exact
    return OwnError(
        str(case),
        against,
        float(np.linalg.norm(error) / np.linalg.norm(exact)),
        float((got * exact).sum() / (np.linalg.norm(got) * np.linalg.norm(exact))),
        float(np.abs(error).max()),
        float(np.abs(exact).max()),
    )


def _wide(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, np.ndarray) else value
