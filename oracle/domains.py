"""Domains: which values the elements of an array may have, where the method restricts them.

``log-gate``: at most 0, the logarithm of a decay; ``fraction``: from 0 to 1; ``decay``: above 0, at most 1; ``finite``: a finite
number; ``nonnegative``: a finite one of at least 0; ``uniform``: at least 0 and below 1, as a generator of random numbers gives
them; ``probability``: from 0 to 1, and rows of the last axis add up to 1 as far as their dtype can tell; ``index m``: an integer of
at least 0 and below the dimension m; ``index m or none``: one of these, or -1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oracle.formats import FORMATS
from oracle.options import OptionError

__all__ = ["DOMAINS", "check_domain", "index_bound"]

DOMAINS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "log-gate": ("at most 0", lambda x: x <= 0),
    "fraction": ("from 0 to 1", lambda x: (x >= 0) & (x <= 1)),
    "decay": ("above 0 and at most 1", lambda x: (x > 0) & (x <= 1)),
    "finite": ("a finite number", np.isfinite),
    "nonnegative": ("a finite number of at least 0", lambda x: np.isfinite(x) & (x >= 0)),
    "uniform": ("at least 0 and below 1", lambda x: (x >= 0) & (x < 1)),
    "probability": ("from 0 to 1", lambda x: (x >= 0) & (x <= 1)),
}


def index_bound(domain: str, sizes: Mapping[str, int]) -> int:
    """The number below which the integers of an ``index`` domain lie."""
    return sizes[domain.split()[1]]


def check_domain(name: str, values: np.ndarray, domain: str, sizes: Mapping[str, int], call: str) -> None:
    """Raise `OptionError` unless all elements lie in the domain."""
    if domain.startswith("index "):
        words = f"at least 0 and below {domain.split()[1]}={index_bound(domain, sizes)}"
        inside = (values >= 0) & (values < index_bound(domain, sizes))
        if domain.endswith(" or none"):
            words, inside = f"{words}, or -1", inside | (values == -1)
    else:
        words, check = DOMAINS[domain]
        inside = check(values)
    if not inside.all():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmin(inside)), inside.shape))
        raise OptionError(f"{name}[{', '.join(map(str, at))}]={values[at]}, but should be {words} [{call}]")
    if domain == "probability":
        _check_sums(name, values, call)


def _check_sums(name: str, values: np.ndarray, call: str) -> None:
    """Rows add up to 1 but for the rounding of each element to the narrowest format, which may be how they came here."""
    if values.ndim == 0 or values.shape[-1] == 0:
        return
    off = np.abs(values.astype(np.float64).sum(axis=-1) - 1.0)
    allowed = max(form.unit_roundoff for form in FORMATS.values()) * 2
    if (off > allowed).any():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
        total = values[at].astype(np.float64).sum()
        raise OptionError(f"{name}[{', '.join(map(str, at))}] adds up to {total:.6g}, but should add up to 1 [{call}]")
