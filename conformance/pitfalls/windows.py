"""Mistakes in which keys a query may read: the window."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from conformance.pitfalls.dense import Array, Reference


class WindowMistake(Reference):
    """A window with other bounds."""

    needs = "moved"
    left_error: ClassVar[int] = 0
    right_error: ClassVar[int] = 0

    def bounds(self) -> tuple[int | None, int | None]:
        left, right = super().bounds()
        return None if left is None else left + self.left_error, None if right is None else right + self.right_error


class WindowIgnored(WindowMistake):
    name = "window-ignored"
    explanation = "The option `window` has no effect."
    citation = "jax#32300"

    def bounds(self) -> tuple[int | None, int | None]:
        return None, None


class WindowIgnoredWhenCausal(WindowIgnored):
    name = "window-ignored-when-causal"
    explanation = "With `causal` the kernel takes a path that knows no window."
    citation = "apache/tvm#18630"
    needs = "moved and causal"


class WindowRightIgnored(WindowMistake):
    name = "window-right-bound-ignored"
    explanation = "Of a window with two bounds only the left one is applied: a query sees every key ahead."
    citation = "jax#39576"
    needs = "moved and left is not None"

    def bounds(self) -> tuple[int | None, int | None]:
        return super().bounds()[0], None


class WindowSymmetric(WindowMistake):
    name = "window-symmetric"
    explanation = "Of a window with two bounds the left one is used on both sides."
    citation = "LightLLM#1311"
    needs = "moved and left is not None and right is not None"

    def bounds(self) -> tuple[int | None, int | None]:
        return super().bounds()[0], super().bounds()[0]


class WindowMirrored(WindowMistake):
    name = "window-open-side-mirrored"
    explanation = "A window without a right bound gets the left one on its right side as well."
    citation = "transformers#39408"
    needs = "moved and right is None"

    def bounds(self) -> tuple[int | None, int | None]:
        left, right = super().bounds()
        return left, left if right is None else right


class WindowLeftShort(WindowMistake):
    name = "window-left-off-by-one"
    explanation = "The left bound of the window is exclusive: the oldest key of the window is missing."
    citation = "tokenspeed#578"
    left_error = -1


class WindowLeftLong(WindowMistake):
    name = "window-left-one-too-many"
    explanation = "The window reaches one key too far to the left."
    citation = "zml#763"
    left_error = 1


class WindowRightShort(WindowMistake):
    name = "window-right-off-by-one"
    explanation = "The right bound of the window is exclusive: its last key is missing."
    citation = "Beltagy et al. 2020, section 3.1, arXiv:2004.05150"
    right_error = -1


class WindowRightLong(WindowMistake):
    name = "window-right-one-too-many"
    explanation = "The window reaches one key too far to the right."
    citation = "Beltagy et al. 2020, section 3.1, arXiv:2004.05150"
    right_error = 1


class WindowZeroIgnored(WindowMistake):
    name = "window-zero-taken-for-none"
    explanation = "`bound or everything`: a bound of 0 counts as no bound."
    citation = "flash-attention#2574"
    needs = "moved and (left == 0 or right == 0)"
    occasional = True

    def bounds(self) -> tuple[int | None, int | None]:
        left, right = super().bounds()
        return left or None, right or None


class WindowIgnoresLengths(WindowMistake):
    name = "window-ignores-length-difference"
    explanation = "The window, unlike causality, is laid around key i instead of key i + Lk - Lq."
    citation = "lablup/mlxcel#413"

    def within_window(self, offsets: Array) -> Array:
        return super().within_window(offsets + self.positions() - np.arange(self.queries)[:, None])
