"""Domains: which values the elements of an array may have, where the method restricts them.

Of floats: ``log-gate``: at most 0, the logarithm of a decay; ``fraction``: from 0 to 1; ``decay``: above 0, at most 1; ``scale``: a
finite number above 0; ``sign``: 1 or -1; ``finite``: a finite number; ``nonnegative``: a finite one of at least 0; ``uniform``: at
least 0 and below 1, as a generator of random numbers gives them; ``probability``: from 0 to 1, and rows of the last axis add up to 1
as far as their dtype can tell.

Of integers, with the names of dimensions and of other arrays as parameters:

* ``index m``: at least 0 and below the dimension m; ``index m or none``: one of these, or -1;
* ``position``: at least 0 and at most 2**24, up to which float32 counts exactly;
* ``context block_size max_blocks``: how many cached positions count, from 0 to block_size * max_blocks;
* ``block-table num_blocks block_size context_lens``: in each row the blocks that hold the positions of a sequence, in order:
  at least 0 and below num_blocks where the sequence's entry in context_lens uses them, elsewhere also -1;
* ``slots num_blocks block_size``: a place block * block_size + offset in a cache, no place twice, or -1 for none;
* ``cumulative l``: starts at 0, never decreases, ends at the dimension l.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oracle.formats import FORMATS
from oracle.options import OptionError

__all__ = ["DOMAINS", "LAST_POSITION", "check_domain", "repeats", "used_blocks"]

DOMAINS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "log-gate": ("at most 0", lambda x: x <= 0),
    "fraction": ("from 0 to 1", lambda x: (x >= 0) & (x <= 1)),
    "scale": ("a finite number above 0", lambda x: np.isfinite(x) & (x > 0)),
    "sign": ("1 or -1", lambda x: np.abs(x) == 1),
    "decay": ("above 0 and at most 1", lambda x: (x > 0) & (x <= 1)),
    "finite": ("a finite number", np.isfinite),
    "nonnegative": ("a finite number of at least 0", lambda x: np.isfinite(x) & (x >= 0)),
    "uniform": ("at least 0 and below 1", lambda x: (x >= 0) & (x < 1)),
    "probability": ("from 0 to 1", lambda x: (x >= 0) & (x <= 1)),
}

LAST_POSITION = 2**24

# Which elements lie in the domain, and what one that does not should be, from its index.
Verdict = tuple[np.ndarray, Callable[[tuple[int, ...]], str]]
Sizes = Mapping[str, int]
Arguments = Mapping[str, Any]


def used_blocks(width: int, block_size: int, contexts: np.ndarray) -> np.ndarray:
    """Which entries of a block table of some width hold positions that count, bool (B, width)."""
    return np.arange(width) * block_size < np.asarray(contexts)[:, None]


def _index(name: str, values: np.ndarray, parameters: list[str], sizes: Sizes, arguments: Arguments) -> Verdict:
    bound, *optional = parameters
    words = f"at least 0 and below {bound}={sizes[bound]}"
    inside = (values >= 0) & (values < sizes[bound])
    return (inside | (values == -1), lambda at: f"{words}, or -1") if optional else (inside, lambda at: words)


def _position(name: str, values: np.ndarray, parameters: list[str], sizes: Sizes, arguments: Arguments) -> Verdict:
    return (values >= 0) & (values <= LAST_POSITION), lambda at: f"from 0 to {LAST_POSITION}"


def _context(name: str, values: np.ndarray, parameters: list[str], sizes: Sizes, arguments: Arguments) -> Verdict:
    size, count = parameters
    longest = sizes[size] * sizes[count]
    return (values >= 0) & (values <= longest), lambda at: f"from 0 to {size} * {count} = {longest}"


def _block_table(name: str, values: np.ndarray, parameters: list[str], sizes: Sizes, arguments: Arguments) -> Verdict:
    count, size, contexts = parameters
    lengths = np.asarray(arguments[contexts])
    used = used_blocks(values.shape[1], sizes[size], lengths)

    def words(at: tuple[int, ...]) -> str:
        below = f"at least 0 and below {count}={sizes[count]}"
        if not used[at]:
            return f"{below}, or -1"
        return f"{below}, as {contexts}[{at[0]}]={lengths[at[0]]} uses entry {at[1]} of blocks of {sizes[size]}"

    return (values >= np.where(used, 0, -1)) & (values < sizes[count]), words


def _slots(name: str, values: np.ndarray, parameters: list[str], sizes: Sizes, arguments: Arguments) -> Verdict:
    count, size = parameters
    bound = sizes[count] * sizes[size]
    first = np.zeros(values.shape, dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True

    def words(at: tuple[int, ...]) -> str:
        words = f"-1, or at least 0 and below {count} * {size} = {bound}"
        return f"{words}, and no place twice" if not first[at] else words

    return (values == -1) | ((values >= 0) & (values < bound) & first), words


def _cumulative(name: str, values: np.ndarray, parameters: list[str], sizes: Sizes, arguments: Arguments) -> Verdict:
    (total,) = parameters
    inside = np.diff(values, prepend=0) >= 0
    inside[:1] &= values[:1] == 0
    inside[-1:] &= values[-1:] == sizes[total]

    def words(at: tuple[int, ...]) -> str:
        (index,) = at
        if index == 0 and values[0] != 0:
            return "0, where the first sequence starts"
        if index > 0 and values[index] < values[index - 1]:
            return f"at least {name}[{index - 1}]={values[index - 1]}: they never decrease"
        return f"{total}={sizes[total]}, where the last sequence ends"

    return inside, words


_INTEGERS: dict[str, Callable[[str, np.ndarray, list[str], Sizes, Arguments], Verdict]] = {
    "index": _index, "position": _position, "context": _context, "block-table": _block_table, "slots": _slots,
    "cumulative": _cumulative,
}  # fmt: skip


def repeats(domain: str) -> bool:
    """Whether all elements of an array may be the same whatever the dimensions are."""
    return domain.partition(" ")[0] not in ("block-table", "slots", "cumulative")


def check_domain(name: str, values: np.ndarray, domain: str, sizes: Sizes, call: str, arguments: Arguments) -> None:
    """Raise `OptionError` unless all elements lie in the domain.

    Args:
        name: of the array.
        values: its elements.
        domain: as in the module's docstring.
        sizes: of the dimensions.
        call: how to describe the call in an error.
        arguments: all of the call, by name; their shapes fit.
    """
    kind, *parameters = domain.split()
    words: Callable[[tuple[int, ...]], str]
    if kind in _INTEGERS:
        inside, words = _INTEGERS[kind](name, values, parameters, sizes, arguments)
    else:
        described, check = DOMAINS[domain]
        inside, words = check(values), lambda at: described
    if not inside.all():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmin(inside)), inside.shape))
        raise OptionError(f"{name}[{', '.join(map(str, at))}]={values[at]}, but should be {words(at)} [{call}]")
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
