"""Pictures of a failure: what an output is, what it should be, and how far apart they are, around its worst element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from conformance.diagnosis.weighing import keys_shown
from conformance.judge import Judgement, compare, settled

__all__ = ["Picture", "picture_of"]

# Rows and columns that a picture shows at most; of a larger output those around the worst element.
MOST = 40

# Names of the axes of a plane, by the letter of its dimension.
AXES = {"l": "query", "s": "key", "e": "value element", "d": "key element", "w": "value element", "h": "head", "n": "token", "x": "expert"}

# Letters of the leading axes in words.
PLACES = {"b": "batch", "h": "head", "n": "part"}


@dataclass(frozen=True)
class Picture:
    """One plane of an output of a failing case.

    Attributes:
        title: which output, and where in its leading axes.
        case: the line of the case.
        axes: what rows and columns are.
        start: the first row and column that are shown.
        shape: of the whole plane.
        got, expected, ratio: (rows, columns); the ratio is error over budget.
        tile: sizes of the implementation's tiles along the two axes, 0 for none.
    """

    title: str
    case: str
    axes: tuple[str, str]
    start: tuple[int, int]
    shape: tuple[int, int]
    got: np.ndarray
    expected: np.ndarray
    ratio: np.ndarray
    tile: tuple[int, int] = (0, 0)


def picture_of(judgement: Judgement) -> Picture | None:
    """The plane of the worst element of a failing case; None where nothing came back that could be compared."""
    case, specs = judgement.case, judgement.case.specification.signature.outputs
    if judgement.finding is None or not judgement.outputs or not judgement.wanted:
        return None
    worst, found = 0.0, None
    # Together: what one output should be may depend on what another shows to be decided.
    given = settled(judgement.outputs, judgement.wanted[: len(judgement.outputs)])
    for spec, got, want in zip(specs, judgement.outputs, given, strict=False):
        if got.shape != want.value.shape or got.size < 2:
            continue  # there is nothing to see in a single element
        ratio, agrees = compare(got, want)
        if not agrees.all() and float(ratio.max()) > worst:
            worst, found = float(ratio.max()), (spec, got, want.value, ratio)
    if found is None:
        return None
    spec, got, expected, ratio = found
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    dims = spec.dims if len(spec.dims) == got.ndim else ("",) * got.ndim
    leading = index[:-2]
    planes = [np.atleast_2d(array[leading]) for array in (got, expected, ratio)]
    row, column = (0, 0, *index)[-2:]
    height, width = planes[0].shape
    top, left = _start(row, height), _start(column, width)
    shown = [plane[top : top + MOST, left : left + MOST].astype(np.float64) for plane in planes]
    letters = ("", "", *dims)[-2:]
    weights = spec is specs[0] and len(letters) == 2 and keys_shown(case)
    letters = (letters[0], "s") if weights else letters
    places = [f"{PLACES.get(letter, letter)} {at}" for letter, at in zip(dims, leading, strict=False)]
    title = ", ".join(["weights of the keys" if weights else spec.name, *places])
    return Picture(
        title, str(case), (AXES.get(letters[0], letters[0]), AXES.get(letters[1], letters[1])),
        (top, left), (height, width), shown[0], shown[1], shown[2], _tiles(letters, case.tunables),
    )  # fmt: skip


def _start(at: int, size: int) -> int:
    return max(0, min(at - MOST // 2, size - MOST))


def _tiles(letters: tuple[str, ...], tunables: Mapping[str, int]) -> tuple[int, int]:
    by_letter = {"l": tunables.get("block_q") or tunables.get("chunk_size") or 0, "s": tunables.get("block_k") or 0}
    return by_letter.get(letters[0], 0), by_letter.get(letters[1], 0)
