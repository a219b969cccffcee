"""Rotary position embeddings: pairs of columns turned by an angle that grows with the position.

Shapes: B batch, H heads, L length, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.readings.ops import as_stored, constants, logarithm

__all__ = ["rotary_embedding"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings


def angles(positions: np.ndarray, width: int, base: float, like: Array) -> Array:
    """position * base**(-2 i / width) of every pair i, (..., width / 2).

    A kernel rounds the frequency, so that the angle is uncertain in proportion to itself: far out, nothing is known of the faster
    pairs in a narrow format.
    """
    steps = constants(np.arange(width // 2) * 2.0, like) / float(max(width, 1))
    frequencies = np.exp(-(steps * logarithm(constants(np.array([base]), like))))
    return constants(positions[..., None], like) * frequencies


@method(
    source="Su et al. 2021, section 3.2.2, eqs. 15 and 34, arXiv:2104.09864",
    shapes="x: b h l d, positions: int b|1 l -> b h l d",
    where={
        "rotary_width is not None or d % 2 == 0": "columns come in pairs",
        "rotary_width is None or (rotary_width % 2 == 0 and rotary_width <= d)": "pairs of columns are turned, no more than there are",
    },
    options={"base": "base", "interleaved": "flag", "rotary_width": "count"},
    domains={"positions": "position"},
    tunables=("block_q",),
)
def rotary_embedding(
    x: Array, positions: np.ndarray, *, base: float = 10000.0, interleaved: bool = False, rotary_width: int | None = None
) -> Array:  # fmt: skip
    """Turn each pair of columns of a query or key by its position times the frequency of the pair.

    Pair i of w / 2, w the rotary width, has the frequency base**(-2 i / w). Turned by the angle a it becomes
    (x1 cos a - x2 sin a, x1 sin a + x2 cos a).

    Args:
        x: queries or keys (B, H, L, D).
        positions: integers (B or 1, L), from 0 to 2**24.
        base: of the frequencies; above 1.
        interleaved: whether pair i is the columns 2 i and 2 i + 1 (the paper, GPT-J) or i and i + w / 2 (GPT-NeoX, Llama).
        rotary_width: how many columns, the first ones, are turned; the others stay. All by default; even.

    Returns:
        (B, H, L, D).

    Raises:
        ShapeError: an array does not fit the signature, or the width that is turned is odd or more than D.
        OptionError: a position is negative or above 2**24.
    """
    width = x.shape[-1] if rotary_width is None else rotary_width
    half = width // 2
    angle = angles(positions, width, base, x)[:, None]  # (B | 1, 1, L, half)
    cos, sin = as_stored(np.cos(angle)), as_stored(np.sin(angle))
    if interleaved:
        pairs = x[..., :width].reshape(*x.shape[:-1], half, 2)
        first, second = pairs[..., 0], pairs[..., 1]
    else:
        first, second = x[..., :half], x[..., half:width]
    # Kernels that stay in the storage format, as those of model code do, round each product before they add.
    turned = (
        as_stored(first * cos) - as_stored(second * sin),
        as_stored(first * sin) + as_stored(second * cos),
    )
    if interleaved:
        joined = np.stack(turned, axis=-1).reshape(*x.shape[:-1], width)
        return np.concatenate([joined, x[..., width:]], axis=-1)
    return np.concatenate([*turned, x[..., width:]], axis=-1)
