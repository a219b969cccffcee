"""Options that are no arrays: how a case writes them, how a kernel gets them, and how they are drawn, by kind."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from itertools import zip_longest
from typing import Any

from conformance.cases.scripts import OTHER_SCRIPTS, draw_script, simpler_scripts
from oracle.operations import parse_operations
from oracle.options import Kind, OptionError

__all__ = ["PATTERNS", "OptionTextError", "as_argument", "draw_option", "others", "parse_option", "plainer"]

# Picks one of a sequence, the simplest first: a seeded random choice in a hunt, a draw in a Hypothesis strategy.
Choose = Callable[[Sequence[Any]], Any]

# Patterns by name, each with a number n: ``dilated:3``. They use operators alone, so that they take numbers, arrays and tensors.
PATTERNS: dict[str, Callable[[int], Callable[[Any, Any], Any]]] = {
    "dilated": lambda n: lambda i, j: (i - j) % n == 0,
    "band": lambda n: lambda i, j: abs(i - j) <= n,
    "behind": lambda n: lambda i, j: (j <= i) & (i - j <= n),
    "ahead": lambda n: lambda i, j: j >= i + n,
    "blocks": lambda n: lambda i, j: i // n == j // n,
    "first": lambda n: lambda i, j: (j < n) | (i == j),
    "rows": lambda n: lambda i, j: (i % (n + 1) != 0) & (j <= i),
    "skewed": lambda n: lambda i, j: (2 * i + j) % (n + 1) < 2,
}


class OptionTextError(ValueError):
    """The text is no value of an option's kind; the message says what it should be."""


def as_argument(kind: Kind, value: Any) -> Any:
    """What the method and the implementation get for the value that a case holds, which may have come as JSON."""
    if kind == "pattern":
        name, _, number = value.partition(":")
        return PATTERNS[name](int(number))
    if kind == "positions":
        return list(value)
    return tuple(value) if isinstance(value, list) else value


def parse_option(kind: Kind, text: str) -> Any:
    """Read an option from a case's line.

    Raises:
        OptionTextError: it does not look like one.
    """
    if isinstance(kind, tuple):
        return text
    if kind == "pattern":
        name, _, number = text.partition(":")
        if name not in PATTERNS or not number.isdecimal() or number == "0":
            raise OptionTextError(f"should be one of {', '.join(f'{known}:N' for known in PATTERNS)}, N >= 1")
        return text
    if kind == "operations":
        try:
            parse_operations(text)
        except OptionError as error:
            raise OptionTextError(f"should be a script of operations: {error}") from None
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise OptionTextError("should be a Python literal") from None
    return tuple(value) if isinstance(value, list) else value


def draw_option(choose: Choose, kind: Kind, dims: Mapping[str, int], tile: int, default: Any) -> Any:
    """A value for an option; None where a call leaves it out, which it may unless it is required.

    Args:
        choose: from a short list, the simplest first.
        kind: of the option.
        dims: sizes of the dimensions that do not follow from options.
        tile: size that lengths are aimed at.
        default: of the method; `inspect.Parameter.empty` where every call gives the option.
    """
    if kind == "flag":
        return choose((None, default is not True))
    if default is not Parameter.empty and not choose((False, False, True) if kind != "window" else (False, True)):
        return None
    if isinstance(kind, tuple):
        return choose(kind)
    return _DRAWN[kind](choose, dims, tile)


def _window(choose: Choose, dims: Mapping[str, int], tile: int) -> tuple[int | None, int | None]:
    sequences = max(dims.get("edges", 2) - 1, 1)  # that share a length, where they are packed
    within = [choose(range(max(dims.get(length, 8) // sequences, 1) + 1)) for length in "lls"]
    reaches = (0, 1, 2, 3, None, tile - 1, tile, tile + 1, None, *within)
    return choose(reaches), choose(reaches)


def _length(dims: Mapping[str, int]) -> int:
    return dims.get("s", dims.get("l", 8))


def _count(choose: Choose, dims: Mapping[str, int], tile: int) -> int:
    return choose((1, 2, 0, 3, 4, 1, 2, tile - 1, tile, tile + 1, choose(range(_length(dims) + 1))))


def _size(choose: Choose, dims: Mapping[str, int], tile: int) -> int:
    return choose((2, 3, 4, 1, 5, 7, 8, 16, tile, max(_length(dims) // 2, 1), _length(dims) + 1))


def _positions(choose: Choose, dims: Mapping[str, int], tile: int) -> tuple[int, ...]:
    """None, the first, several or many in any order, some of them twice."""
    length = _length(dims)
    if length == 0:
        return ()
    count = choose((1, 2, 0, 3, 2, 5, 1, 2, 3, min(40, length)))
    drawn = [choose((0, choose(range(length)), choose(range(length)), length - 1)) for _ in range(count)]
    return tuple(drawn + drawn[:1] if drawn and choose((False, False, True)) else drawn)


def _pattern(choose: Choose, dims: Mapping[str, int], tile: int) -> str:
    return f"{choose(tuple(PATTERNS))}:{choose((2, 1, 3, 4, 7, tile))}"


_DRAWN: dict[str, Callable[[Choose, Mapping[str, int], int], Any]] = {
    "window": _window,
    # A cap of 400 leaves logits whose exponentials overflow: else a kernel that always caps would need no maximum.
    "positive": lambda choose, dims, tile: choose((2.0, 0.5, 30.0, 400.0)),
    "nonnegative": lambda choose, dims, tile: choose((1e-6, 0.0, 1e-3, 1.0)),
    # Never 0, where a sum that a good kernel's stabilisers make vanish would be 0 / 0; but small enough to be nothing beside others.
    "guard": lambda choose, dims, tile: choose((1e-6, 1e-12, 1e-9, 1e-3, 1.0, 1e-12)),
    "real": lambda choose, dims, tile: choose((1.0, 0.3, 0.1, -0.5, 0.0, 2.0)),
    "base": lambda choose, dims, tile: choose((500000.0, 100.0, 1000000.0, 2.0)),
    "count": _count,
    # Of a polynomial: those at which one degree more or less shows, and a few at which rounding does.
    "degree": lambda choose, dims, tile: choose((2, 3, 4, 1, 5, 6, 0, 8, 10, 16, 24, 40)),
    "size": _size,
    "positions": _positions,
    # The widest is one on which even a degree of 24 falls short of the exponential.
    "interval": lambda choose, dims, tile: choose(((-1.0, 1.0), (-4.0, 4.0), (-2.0, 1.0), (-10.0, 0.0), (-20.0, 0.0), (-60.0, 0.0))),
    "pattern": _pattern,
    "operations": draw_script,
}

_OTHERS: dict[str, tuple[Any, ...]] = {
    "flag": (True, False),
    "window": ((0, 0), (1, None), (0, None), (None, 0), (2, 1)),
    "positive": (2.0, 0.5, 30.0),
    "nonnegative": (1e-6, 0.0, 1.0),
    "guard": (1e-6, 1e-12, 1.0),
    "real": (0.3, 1.0, 0.0, -0.5),
    "base": (100.0, 500000.0),
    "count": (1, 0, 2, 3, 4, 16),
    "degree": (2, 3, 1, 0, 5, 10),
    "size": (1, 2, 3, 4, 8, 16),
    "positions": ((0,), (), (0, 1), (1,)),
    "interval": ((-1.0, 1.0), (-4.0, 4.0)),
    "pattern": ("dilated:2", "band:1", "blocks:2", "rows:1"),
    "operations": OTHER_SCRIPTS,
}


def others(kind: Kind, value: Any = None) -> tuple[Any, ...]:
    """A few values of a kind, to try instead of another; of scripts also those that lack a part of it."""
    if kind == "operations" and value is not None:
        return tuple(one for pair in zip_longest(OTHER_SCRIPTS, simpler_scripts(value)[: len(OTHER_SCRIPTS)]) for one in pair if one)
    return kind if isinstance(kind, tuple) else _OTHERS[kind]


def plainer(kind: Kind, value: Any) -> list[Any]:
    """Plainer values, the plainest first."""
    if kind == "window":
        sides = [(side, index) for index, side in enumerate(value)]
        return [
            (*value[:index], other, *value[index + 1 :])
            for side, index in sides
            for other in (None, 0, 1)
            if side != other and (side is None) <= (other is None)
        ]
    if kind in ("count", "degree", "size"):
        least = 1 if kind == "size" else 0
        return [smaller for smaller in dict.fromkeys((least, 1, 2, 3, value // 2, value - 1)) if least <= smaller < value]
    if kind == "positions":
        return [value[:index] + value[index + 1 :] for index in range(len(value))]
    if kind == "operations":
        return simpler_scripts(value)
    if isinstance(kind, tuple):
        return list(kind[: kind.index(value)])
    return []
