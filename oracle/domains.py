"""Domains: which values the elements of an array may have, where the method restricts them.

``log-gate``: at most 0, the logarithm of a decay; ``fraction``: from 0 to 1; ``decay``: above 0, at most 1; ``scale``: a finite number
above 0; ``sign``: 1 or -1; ``index m``: an integer of at least 0 and below the dimension m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oracle.options import OptionError

__all__ = ["DOMAINS", "check_domain", "index_bound"]

DOMAINS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "log-gate": ("at most 0", lambda x: x <= 0),
    "fraction": ("from 0 to 1", lambda x: (x >= 0) & (x <= 1)),
    "scale": ("a finite number above 0", lambda x: np.isfinite(x) & (x > 0)),
    "sign": ("1 or -1", lambda x: np.abs(x) == 1),
    "decay": ("above 0 and at most 1", lambda x: (x > 0) & (x <= 1)),
}


def index_bound(domain: str, sizes: Mapping[str, int]) -> int:
    """The number below which the integers of an ``index`` domain lie."""
    return sizes[domain.split()[1]]


def check_domain(name: str, values: np.ndarray, domain: str, sizes: Mapping[str, int], call: str) -> None:
    """Raise `OptionError` unless all elements lie in the domain."""
    if domain.startswith("index "):
        words = f"at least 0 and below {domain.split()[1]}={index_bound(domain, sizes)}"
        inside = (values >= 0) & (values < index_bound(domain, sizes))
    else:
        words, check = DOMAINS[domain]
        inside = check(values)
    if not inside.all():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmin(inside)), inside.shape))
        raise OptionError(f"{name}[{', '.join(map(str, at))}]={values[at]}, but should be {words} [{call}]")
