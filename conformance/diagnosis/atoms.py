"""Atoms: the statements that a trigger condition is put together from, and the search for the plainest conjunction.

An atom is true of every case that failed, so whatever conjunction of atoms is chosen, no case is known to contradict it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.diagnosis.facts import VALUES, Facts, Flag

__all__ = ["INSIDE", "INSIDE_NEAR", "NEGLIGIBLE", "Atom", "Table", "fit", "rivals"]

Column = np.ndarray  # one entry for each case

SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le,
}  # fmt: skip

# Counts whose names are words rather than expressions.
IN_WORDS = re.compile(" of ")

TILES = (2, 4, 8, 16, 32, 64, 128, 256)
POWERS = (1, 2, 4, 8, 16, 32)
PAIRS = (("l", "s"), ("d", "e"), ("h", "g"))
UNUSUAL_PAIRS = (("b", "h"), ("b", "l"), ("h", "l"), ("b", "s"), ("h", "s"), ("l", "d"), ("s", "d"))
TILED = (("s", "block_k"), ("l", "block_q"), ("s", "num_splits"), ("block_q", "block_k"))

# Numbers that kernels take for infinity, and by storage dtype where exp and the format itself end: a bound between cases
# that pass and cases that fail is named after the one that lies there.
NOTABLE = {
    "": {0.0: "", 1e4: "", 5e4: "", 1e9: "", -1e4: "", -5e4: "", -1e9: ""},
    "float16": {11.09: "exp overflows float16", 65504.0: "float16 overflows"},
    "float32": {88.72: "exp overflows float32", 3.4e38: "float32 overflows", -87.3: "exp underflows float32"},
    "float64": {709.7: "exp overflows float64", -708.3: "exp underflows float64"},
}
LIMITS = {"float64": ("", "float64"), "float16": ("", "float32", "float16"), "float32": ("", "float32"), "bfloat16": ("", "float32")}

# A magnitude below is as good as zero; values below are as good as any.
NEGLIGIBLE, LARGE_VALUE = 1e-6, 100.0

# What an atom costs: a comparison of two sizes or a remainder says more than a bound on one size, and that a failure takes
# something small, or something left out, is seldom the reason.
BOUND, EQUAL, REMAINDER, PAIR, POWER, MAGNITUDE = 1.0, 1.1, 1.3, 1.4, 1.7, 3.0
SELDOM, UNUSUAL, OF_PRODUCT, ROUND = 0.5, 0.4, 0.8, -0.2

# Offsets overflow from here on: about less, a product says nothing that its factors do not say better.
SMALLEST_OFFSET = 64

# What each further atom costs, and each case that passes although the condition is true of it: such cases abound far off,
# where numbers hide a mistake; one that differs from the shrunk case in a single respect says more.
MORE, INSIDE, INSIDE_NEAR = 0.5, 0.5, 2.0

# Atoms of a conjunction, conjunctions that are extended, and rivals that are put to the test.
LONGEST, BEAM, RIVALS = 3, 40, 5


class Table:
    """Facts of many cases as columns."""

    def __init__(self, facts: Sequence[Facts]) -> None:
        self.facts = tuple(facts)
        self._columns: dict[str, Column] = {}

    def count(self, name: str) -> Column:
        """A whole number; NaN where a case has none."""
        return self._column(name, lambda facts: facts.counts.get(name, np.nan))

    def magnitude(self, name: str) -> Column:
        """Of elements; NaN where a case has none."""
        return self._column(name, lambda facts: facts.magnitudes.get(name, np.nan))

    def flag(self, flag: Flag) -> Column:
        """Whether it is true."""
        return self._column(flag.text, lambda facts: flag.text in (facts.flags_of_values if flag.of_values else facts.flags))

    def _column(self, name: str, entry: Callable[[Facts], Any]) -> Column:
        if name not in self._columns:
            self._columns[name] = np.array([entry(facts) for facts in self.facts])
        return self._columns[name]

    @property
    def counts(self) -> list[str]:
        """Names of those that some case has."""
        return list(dict.fromkeys(name for facts in self.facts for name in facts.counts))

    @property
    def magnitudes(self) -> list[str]:
        """Names of those that some case has."""
        return list(dict.fromkeys(name for facts in self.facts for name in facts.magnitudes))

    @property
    def flags(self) -> list[Flag]:
        """Those that are true of some case."""
        return list({name: flag for facts in self.facts for name, flag in (facts.flags | facts.flags_of_values).items()}.values())


@dataclass(frozen=True)
class Atom:
    """A statement about a case.

    Attributes:
        text: as a sentence says it.
        condition: in the language of `oracle.conditions`; "" where that has no words for it.
        cost: the lower, the plainer.
        test: whether it is true of each case of a table.
        subject: what it is about, so that atoms about the same can be told apart by tests.
        of_values: whether it takes the elements of the arrays to tell.
        gap: of a magnitude that it bounds, the numbers between which the true bound lies.
    """

    text: str
    condition: str
    cost: float
    test: Callable[[Table], Column]
    subject: str
    of_values: bool = False
    gap: tuple[float, float] | None = None


def atoms_of(table: Table, failed: Column) -> list[Atom]:
    """Every atom that is true of all cases that failed and not of all that passed, the plainest first."""
    proposed = [*_flags(table), *_counts(table, failed), *_pairs(table), *_magnitudes(table, failed)]
    kept = []
    for atom in sorted(proposed, key=lambda atom: atom.cost):
        true = atom.test(table)
        if true[failed].all() and not true[~failed].all():
            kept.append(atom)
    return kept


def _flags(table: Table) -> Iterator[Atom]:
    for flag in table.flags:
        yield _flag(flag)
        if flag.contrary:
            yield _contrary(flag)


def _flag(flag: Flag) -> Atom:
    return Atom(flag.text, flag.condition, flag.cost, lambda table: table.flag(flag), flag.text, flag.of_values)


def _contrary(flag: Flag) -> Atom:
    condition = f"not ({flag.condition})" if flag.condition else ""
    return Atom(flag.contrary, condition, flag.cost + SELDOM, lambda table: ~table.flag(flag), flag.text, flag.of_values)


def _counts(table: Table, failed: Column) -> Iterator[Atom]:
    for name in table.counts:
        column = table.count(name)
        wrong, right = column[failed], column[~failed]
        if np.isnan(wrong).any():
            continue
        if "*" in name:
            yield from _bounds(name, wrong, right, OF_PRODUCT)
            continue
        yield from _bounds(name, wrong, right, 0.0)
        for tile in TILES:
            rests = np.unique(wrong % tile)
            if len(rests) == 1 and wrong.min() < wrong.max():
                yield _remainder(name, tile, "==", int(rests[0]))
            if 0 not in rests:
                yield _remainder(name, tile, "!=", 0)
        if name in ("h // g", "h", "g", "d"):
            yield _no_power(name)


def _bounds(name: str, wrong: Column, right: Column, extra: float) -> Iterator[Atom]:
    low, high = int(wrong.min()), int(wrong.max())
    below, above = right[right < low], right[right > high]
    if "*" in name and low < SMALLEST_OFFSET:
        return
    if low == high:
        yield _bound(name, "==", low, EQUAL + extra)
    elif above.size:
        yield _bound(name, "<=", high, BOUND + SELDOM + extra)
    if below.size:
        # The roundest number from one that passes up to the last before one that fails.
        last = int(below.max())
        yield _bound(name, ">", max(range(last, min(low, last + 5000)), key=lambda number: (number & -number, -number)), BOUND + extra)


def _bound(name: str, sign: str, number: int, cost: float) -> Atom:
    return _expression(f"{name} {sign} {number}", cost, lambda table: SIGNS[sign](table.count(name), number), name)


def _remainder(name: str, tile: int, sign: str, rest: int) -> Atom:
    cost = REMAINDER + tile / 1000
    return _expression(f"{name} % {tile} {sign} {rest}", cost, lambda table: SIGNS[sign](table.count(name) % tile, rest), name)


def _no_power(name: str) -> Atom:
    text = f"{name} not in ({', '.join(map(str, POWERS))})"
    return _expression(text, POWER, lambda table: ~np.isin(table.count(name), POWERS), name)


def _pairs(table: Table) -> Iterator[Atom]:
    known = set(table.counts)
    for pairs, cost in ((PAIRS, PAIR), (UNUSUAL_PAIRS, PAIR + UNUSUAL)):
        for one, other in pairs:
            if {one, other} <= known:
                yield from (_pair(one, sign, other, cost) for sign in SIGNS)
    for one, other in TILED:
        if {one, other} <= known:
            yield from (_pair(one, sign, other, PAIR) for sign in ("<", "<=", ">"))
            yield from (_pair_remainder(one, other, sign, rest) for sign, rest in (("!=", 0), ("==", 0), ("==", 1)))


def _pair(one: str, sign: str, other: str, cost: float) -> Atom:
    text = f"{one} {sign} {other}"
    return _expression(text, cost, lambda table: SIGNS[sign](table.count(one), table.count(other)), f"{one}, {other}")


def _pair_remainder(one: str, other: str, sign: str, rest: int) -> Atom:
    text = f"{one} % {other} {sign} {rest}"
    return _expression(text, PAIR, lambda table: SIGNS[sign](table.count(one) % table.count(other), rest), f"{one}, {other}")


def _expression(text: str, cost: float, test: Callable[[Table], Column], subject: str) -> Atom:
    return Atom(text, "" if IN_WORDS.search(text) else text, cost, test, subject)


def _magnitudes(table: Table, failed: Column) -> Iterator[Atom]:
    notable = {number: words for form in LIMITS[table.facts[0].case.dtype] for number, words in NOTABLE[form].items()}
    for name in table.magnitudes:
        column = table.magnitude(name)
        wrong, right = column[failed], column[~failed]
        if np.isnan(wrong).any():
            continue
        low, high = float(wrong.min()), float(wrong.max())
        below, above = right[right < low], right[right > high]
        if name == VALUES and low < LARGE_VALUE:
            continue
        if below.size:
            gap = float(below.max()), low
            if low > NEGLIGIBLE or low < 0:
                yield _measured(name, ">", _short(*gap), "", MAGNITUDE, gap)
            for number in sorted(number for number in notable if number < low)[-1:]:
                yield _measured(name, ">", number, notable[number], MAGNITUDE + ROUND, gap)
        if above.size:
            gap = high, float(above.min())
            yield _measured(name, "<=", _short(*gap), "", MAGNITUDE + SELDOM, gap)
            for number in sorted(number for number in notable if number >= high)[:1]:
                yield _measured(name, "<=", number, notable[number], MAGNITUDE + SELDOM + ROUND, gap)


def _short(low: float, high: float) -> float:
    """A number in [low, high) of few digits."""
    tries = (float(f"{number:.{digits}g}") for digits in range(1, 17) for number in ((low + high) / 2, low))
    return next((number for number in tries if low <= number < high), low)


def _measured(name: str, sign: str, number: float, words: str, cost: float, gap: tuple[float, float]) -> Atom:
    # What the number stands for is said only where what passes and what fails lie close to it.
    close = words and gap[0] <= number < gap[1] and gap[1] - gap[0] < abs(number) / 2
    text = f"{name} {sign} {number:g}" + (f" ({words})" if close else "")
    return Atom(text, "", cost, lambda table: SIGNS[sign](table.magnitude(name), number), name, True, gap)


def fit(table: Table, failed: Column, inside: float = INSIDE) -> tuple[Atom, ...]:
    """The plainest conjunction of atoms that leaves few cases that passed inside; empty where none says anything.

    Args:
        table: facts of the cases.
        failed: which of them did.
        inside: what a case that passed inside costs.
    """
    passed = int((~failed).sum())
    useful = _undominated(atoms_of(table, failed), table, failed)
    best, beam = (inside * passed, ()), [(0, ())]  # type: tuple[float, tuple[Atom, ...]], list[tuple[int, tuple[Atom, ...]]]
    for _ in range(LONGEST):
        longer: dict[frozenset[str], tuple[float, int, tuple[Atom, ...]]] = {}
        for covered, chosen in beam:
            for outside, atom in useful:
                together, atoms = covered | outside, (*chosen, atom)
                if together != covered:
                    cost = sum(atom.cost for atom in atoms) + MORE * (len(atoms) - 1) + inside * (passed - together.bit_count())
                    longer.setdefault(frozenset(atom.text for atom in atoms), (cost, together, atoms))
        ranked = sorted(longer.values(), key=lambda item: item[0])[:BEAM]
        if ranked and ranked[0][0] < best[0]:
            best = ranked[0][0], ranked[0][2]
        beam = [(together, atoms) for _, together, atoms in ranked]
    return best[1]


def _undominated(atoms: list[Atom], table: Table, failed: Column) -> list[tuple[int, Atom]]:
    """Atoms with the cases that passed outside of them, as bits; none for which a plainer one leaves as many outside."""
    kept: list[tuple[int, Atom]] = []
    for atom in atoms:
        outside = int("".join("10"[int(true)] for true in atom.test(table)[~failed]), 2)
        if not any(outside | other == other for other, _ in kept):
            kept.append((outside, atom))
    return kept


def rivals(chosen: tuple[Atom, ...], table: Table, failed: Column) -> list[Atom]:
    """Atoms that are not chosen but might be part of the truth: about what the chosen are, or false of most that passed inside."""
    inside = ~failed
    for atom in chosen:
        inside &= atom.test(table)
    subjects, texts = {atom.subject for atom in chosen}, {atom.text for atom in chosen}
    useful = _undominated([atom for atom in atoms_of(table, failed) if atom.text not in texts], table, failed)
    ranked = sorted((atom for _, atom in useful), key=lambda atom: (-int((inside & ~atom.test(table)).sum()), atom.cost))
    related = [atom for atom in atoms_of(table, failed) if atom.subject in subjects and atom.text not in texts]
    return [*ranked[:RIVALS], *related[:RIVALS]]
