"""Which elements are wrong: the plainest statement that is true of every wrong element of the cases that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conformance.cases.case import Case
from conformance.judge import Judgement, compare, settled

__all__ = ["wrong_elements"]

AXES = {"b": "batch", "h": "head", "l": "query", "e": "column"}
TILES = (2, 4, 8, 16, 32, 64, 128)
STARTS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# So many cases, with so many numbers of keys, must hold right elements that a statement leaves out: with a single key
# most of what is true of some rows is true for another reason.
CASES, KEYS = 3, 2

# Cases that are looked at.
LOOKED_AT = 80


@dataclass(frozen=True)
class _Output:
    """One output of a case that failed: which of its elements are right, and of which a statement is true."""

    case: Case
    right: np.ndarray
    rules: Mapping[str, np.ndarray]

    def covered(self, rule: str) -> np.ndarray:
        """Elements that a statement is true of."""
        return np.broadcast_to(self.rules.get(rule, np.array(False)), self.right.shape)


def wrong_elements(failing: Sequence[Judgement], meaning: Mapping[str, str]) -> str:
    """Such as ``elements whose batch index is not 0``; "" where nothing plain is true of every wrong element.

    Args:
        failing: refuted cases with their outputs.
        meaning: conventions that the implementation declares.
    """
    outputs = [output for judgement in failing[:LOOKED_AT] for output in _outputs(judgement, meaning)]
    best, least = "", np.inf
    for rule in dict.fromkeys(rule for output in outputs for rule in output.rules):
        covered = [output.covered(rule) for output in outputs]
        size = sum(int(cover.sum()) for cover in covered)
        if size < least and all((cover | output.right).all() for cover, output in zip(covered, outputs, strict=True)):
            others = [output.case for cover, output in zip(covered, outputs, strict=True) if (output.right & ~cover).any()]
            if len(others) >= CASES and len({case.dims["s"] if "s" in case.dims else str(case) for case in others}) >= KEYS:
                best, least = rule, size
    return best if not all(output.right.all() for output in outputs) else ""


def _outputs(judgement: Judgement, meaning: Mapping[str, str]) -> Iterator[_Output]:
    case = judgement.case
    if not judgement.wanted:
        return
    specs, rows = case.specification.signature.outputs, _rows(case, meaning)
    returned = len(judgement.outputs)  # an implementation may leave out the optional ones
    for spec, got, want in zip(specs[:returned], judgement.outputs, settled(judgement.outputs, judgement.wanted), strict=True):
        right = compare(got, want)[1]
        rules: dict[str, np.ndarray] = {f"elements of {spec.name}": np.array(True)} if returned > 1 else {}
        for axis, letter in enumerate(spec.dims):
            if letter in AXES:
                along = [-1 if other == axis else 1 for other in range(right.ndim)]
                rules |= {name: rule.reshape(along) for name, rule in _along(letter, right.shape[axis], case.tunables)}
        if {"b", "h", "l"} <= set(spec.dims):
            rules |= {name: rule.reshape(rule.shape + (1,) * (right.ndim - 3)) for name, rule in rows.items()}
        yield _Output(case, right, rules)


def _along(letter: str, size: int, tunables: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    index, name = np.arange(size), f"elements whose {AXES[letter]} index"
    yield f"{name} is 0", index == 0
    yield f"{name} is not 0", index > 0
    yield f"{name} is the last", index == size - 1
    yield from ((f"{name} >= {start}", index >= start) for start in STARTS)
    yield from ((f"{name} % {tile} == {tile - 1}", index % tile == tile - 1) for tile in TILES)
    if letter == "l":
        tiles = {str(tile): tile for tile in TILES} | {name: size for name, size in tunables.items() if name == "block_q"}
        yield from ((f"{name} lies in the last, partial tile of {tile}", index >= size // tiles[tile] * tiles[tile]) for tile in tiles)


def _rows(case: Case, meaning: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Statements about rows (B, Hq, Lq)."""
    visible = case.specification.visible
    if visible is None or not case.size:
        return {}
    keys = visible({**case.arguments(meaning), **meaning}, case.dims)
    allowed = np.broadcast_to(keys, tuple(case.dims[letter] for letter in "bhls"))
    seen = allowed.any(axis=-1)
    return {
        "rows without an allowed key": ~seen,
        "rows with a hidden key": ~allowed.all(axis=-1),
        "rows whose first key is hidden": seen & ~allowed[..., :1].any(axis=-1),
        "rows with a single allowed key": allowed.sum(axis=-1) == 1,
    }
