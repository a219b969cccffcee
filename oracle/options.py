"""Kinds of options: what values an option that is no array may have, in words and as a check.

A kind is one of the names of `OPTION_KINDS`, or a tuple of strings of which the option is one, the default first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["OPTION_KINDS", "Kind", "OptionError", "allows", "in_words", "why_not"]

Kind = str | tuple[str, ...]


class OptionError(ValueError):
    """An option is unknown or has a value that the method does not allow."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_window(value: Any) -> bool:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return False
    return all(side is None or (_is_integer(side) and side >= 0) for side in value)


def _are_positions(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iu" and bool((value >= 0).all())
    return isinstance(value, Sequence) and not isinstance(value, str) and all(_is_integer(one) and one >= 0 for one in value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _are_operations(value: Any) -> bool:
    return isinstance(value, str) and not _trouble_with_operations(value)


def _trouble_with_operations(value: Any) -> str:
    from oracle.operations import parse_operations  # which raises the errors of this module

    try:
        parse_operations(str(value))
    except OptionError as error:
        return str(error)
    return ""


OPTION_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "flag": ("True or False", lambda value: isinstance(value, (bool, np.bool_))),
    "window": ("a pair (left, right) of integers >= 0 or None", _is_window),
    "positive": ("a number > 0", lambda value: _is_number(value) and value > 0),
    "nonnegative": ("a number >= 0", lambda value: _is_number(value) and value >= 0),
    "guard": ("a number >= 0", lambda value: _is_number(value) and value >= 0),
    "real": ("a finite number", _is_number),
    "base": ("a number > 1", lambda value: _is_number(value) and value > 1),
    "count": ("an integer >= 0", lambda value: _is_integer(value) and value >= 0),
    "degree": ("an integer >= 0", lambda value: _is_integer(value) and value >= 0),
    "size": ("an integer >= 1", lambda value: _is_integer(value) and value >= 1),
    "positions": ("a list of integers >= 0", _are_positions),
    "interval": ("a pair (low, high) of numbers, low < high", _is_interval),
    "pattern": ("a function (i, j) -> bool of positions", callable),
    "operations": ("a script of operations on a cache, such as 'join(0,5);grow(0,1)'", _are_operations),
}

# What is wrong with a value that a kind does not allow, where there is more to say than what it should be.
_TROUBLES: dict[Kind, Callable[[Any], str]] = {"operations": _trouble_with_operations}


def allows(kind: Kind, value: Any) -> bool:
    """Whether an option of a kind may have a value."""
    return OPTION_KINDS[kind][1](value) if isinstance(kind, str) else isinstance(value, str) and value in kind


def in_words(kind: Kind) -> str:
    """What an option of a kind should be."""
    return OPTION_KINDS[kind][0] if isinstance(kind, str) else f"one of {', '.join(kind)}"


def why_not(kind: Kind, value: Any) -> str:
    """What is wrong with a value that a kind does not allow, in parentheses; nothing where `in_words` says it all."""
    return f" ({_TROUBLES[kind](value)})" if kind in _TROUBLES else ""
