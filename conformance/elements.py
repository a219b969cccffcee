"""Which elements are wrong: the plainest statement that is true of every wrong element of the cases that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.adequacy import lift
from conformance.cases.case import Case
from conformance.judge import Judgement, compare
from conformance.pitfalls.dense import Reference

__all__ = ["wrong_elements"]

AXES = {letter: f"elements whose {name} index" for letter, name in (("b", "batch"), ("h", "head"), ("l", "query"), ("e", "column"))}
TILES = (2, 4, 8, 16, 32, 64, 128)

# So many cases must hold right elements that a statement leaves out.
SUPPORT = 3

# Cases that are looked at.
LOOKED_AT = 80


@dataclass(frozen=True)
class _Output:
    """One output of a case that failed: which of its elements are right, and statements that are true of some."""

    right: np.ndarray
    rules: Mapping[str, np.ndarray]


def wrong_elements(failing: Sequence[Judgement], meaning: Mapping[str, str]) -> str:
    """Such as ``elements whose batch index > 0``; "" where nothing plain is true of every wrong element and of few right ones.

    Args:
        failing: refuted cases with their outputs.
        meaning: conventions that the implementation declares.
    """
    outputs = [output for judgement in failing[:LOOKED_AT] for output in _outputs(judgement, meaning)]
    if all(output.right.all() for output in outputs):
        return ""
    names = dict.fromkeys(name for output in outputs for name in output.rules)
    best, least = "", np.inf
    for name in names:
        covered = [np.broadcast_to(output.rules.get(name, False), output.right.shape) for output in outputs]
        if all((cover | output.right).all() for cover, output in zip(covered, outputs, strict=True)):
            outside = [bool((output.right & ~cover).any()) for cover, output in zip(covered, outputs, strict=True)]
            inside = sum(int(cover.sum()) for cover in covered)
            if sum(outside) >= SUPPORT and inside < least:
                best, least = name, inside
    return best


def _outputs(judgement: Judgement, meaning: Mapping[str, str]) -> Iterator[_Output]:
    case = judgement.case
    if not judgement.wanted:
        return
    specs = case.specification.signature.outputs
    rows = _rows(case, meaning)
    for spec, got, want in zip(specs, judgement.outputs, judgement.wanted, strict=True):
        right = compare(got, want)[1]
        rules: dict[str, Any] = {f"elements of {spec.name}": True} if len(specs) > 1 else {}
        for axis, letter in enumerate(spec.dims):
            if letter in AXES and right.ndim == len(spec.dims):
                along = [1] * axis + [-1] + [1] * (right.ndim - axis - 1)
                rules |= {name: rule.reshape(along) for name, rule in _along(AXES[letter], right.shape[axis], case.tunables)}
        if {"b", "h", "l"} <= set(spec.dims):
            rules |= {name: rule.reshape(rule.shape + (1,) * (right.ndim - 3)) for name, rule in rows.items()}
        yield _Output(right, rules)


def _along(name: str, size: int, tunables: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    index = np.arange(size)
    yield f"{name} is 0", index == 0
    yield f"{name} is the last", index == size - 1
    for start in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        yield f"{name} >= {start}" if start > 1 else f"{name} is not 0", index >= start
    for tile in TILES:
        yield f"{name} % {tile} == {tile - 1}", index % tile == tile - 1
    tiles = {f"{tile}": tile for tile in TILES} | ({"block_q": tunables["block_q"]} if "block_q" in tunables else {})
    for word, tile in tiles.items():
        yield f"{name} lies in the last, partial tile of {word}", index >= size // tile * tile


def _rows(case: Case, meaning: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Statements about rows (B, Hq, Lq)."""
    if "q" not in case.arrays or not case.size:
        return {}
    with np.errstate(all="ignore"):
        allowed = Reference(*lift(case, {**case.arguments(meaning), **meaning})).allowed()
    seen = allowed.any(axis=-1)
    return {
        "rows without an allowed key": ~seen,
        "rows with a hidden key": ~allowed.all(axis=-1),
        "rows whose first key is hidden": seen & ~allowed[..., :1].any(axis=-1),
        "rows with a single allowed key": allowed.sum(axis=-1) == 1,
    }
