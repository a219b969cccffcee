"""Memory layouts: how the elements of an argument lie in memory. A correct implementation gives the same answer for all.

The gaps of a layout hold NaN (or True), so an implementation that ignores strides and reads them shows it.
"""

from __future__ import annotations

import numpy as np

from conformance.cases.shapes import WIDTH_LETTERS
from oracle.catalogue import Method

__all__ = ["LAYOUTS", "broadcast_axis", "declared_order", "lay_out"]

# contiguous: row-major; transposed: the length axis outermost but for the batch, as (b, l, h, d) storage seen as
# (b, h, l, d); strided: every other element of a larger array, along the length axis; padded: rows with a gap behind
# them, starting at an offset; swapped: the last two axes exchanged in memory; expanded: stride 0 along an axis whose
# elements repeat: the heads, the batch, or the rows.
LAYOUTS = ("contiguous", "transposed", "strided", "padded", "swapped", "expanded", "expanded_batch", "expanded_rows")

_REPEATED = {"expanded": "gh", "expanded_batch": "b", "expanded_rows": "sl"}


def broadcast_axis(layout: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> int | None:
    """The axis that an expanded layout repeats; None for the other layouts and where there is none of several elements."""
    for letter in _REPEATED.get(layout, ""):
        if letter in axes and shape[axes.index(letter)] > 1:
            return axes.index(letter)
    return None


def declared_order(layout: str | None, method: Method, axes: tuple[str, ...]) -> list[int] | None:
    """Where a layout that an implementation declares, such as "b l h d", puts the axes of an array; None where it does not speak of it.

    It speaks of arrays shaped like the first argument: queries, keys, values and outputs, not masks, biases and statistics.
    """
    if layout is None:
        return None
    letters = method.signature.required[0].dims
    if len(axes) != len(letters) or axes[-1] not in WIDTH_LETTERS:
        return None
    return [letters.index(letter) for letter in layout.split()]


def lay_out(values: np.ndarray, layout: str, repeated: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Place an array in memory.

    Args:
        values: contiguous array.
        layout: one of `LAYOUTS`.
        repeated: `broadcast_axis`, along which all elements are taken to equal the first.

    Returns:
        The base, a contiguous one-dimensional array of the memory, and the view of it that is the argument.
    """
    if repeated is not None:
        kept = np.ascontiguousarray(np.take(values, [0], axis=repeated))
        return kept.reshape(-1), np.broadcast_to(kept, values.shape)
    if layout == "transposed" and values.ndim >= 3:
        base = np.ascontiguousarray(np.swapaxes(values, -2, -3))
        return base.reshape(-1), np.swapaxes(base, -2, -3)
    if layout == "swapped" and values.ndim >= 2:
        base = np.ascontiguousarray(np.swapaxes(values, -1, -2))
        return base.reshape(-1), np.swapaxes(base, -1, -2)
    if layout == "strided" and values.ndim >= 2:
        *outer, rows, width = values.shape
        base = _gaps((*outer, 2 * rows + 1, width), values.dtype)
        view = base[..., 1::2, :]
        view[...] = values
        return base.reshape(-1), view
    if layout == "padded" and values.ndim >= 1:
        *outer, width = values.shape
        base = _gaps((*outer, width + 3), values.dtype)
        view = base[..., 2 : 2 + width]
        view[...] = values
        return base.reshape(-1), view
    base = np.ascontiguousarray(values)
    return base.reshape(-1), base


def _gaps(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    # A gap of integers holds one that no array has so many elements for; one of bytes, the code of NaN where there is one.
    if dtype.itemsize == 1 and dtype.kind != "b":
        return np.full(shape, 0x7F, dtype=np.uint8).view(dtype)
    return np.full(shape, {"b": True, "i": 2**40}.get(dtype.kind, np.nan), dtype=dtype)
