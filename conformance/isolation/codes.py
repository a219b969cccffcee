"""Codes of a few bits on their way to a worker and back: packed in bytes there, the numbers that they stand for here."""

from __future__ import annotations

import numpy as np

from oracle.codes import CodeFormat, pack, unpack

__all__ = ["decoded", "stored"]


def stored(numbers: np.ndarray, form: CodeFormat) -> np.ndarray:
    """Numbers of a format as a call gets them: of its dtype, or two nibbles to a byte along the last axis."""
    return pack(numbers.view(np.uint8)) if form.packed > 1 else numbers


def decoded(codes: np.ndarray, form: CodeFormat, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers, float64 of a shape, that the codes which a call returned stand for."""
    return form.decode(unpack(codes, shape[-1]) if form.packed > 1 else codes).reshape(shape)
