"""Recipes for arrays of codes of a few bits: numbers that their format has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conformance.cases.values import index
from oracle.codes import CodeFormat

__all__ = ["CODE_RECIPES", "make_codes"]


def _largest_codes(rng: np.random.Generator, shape: tuple[int, ...], form: CodeFormat) -> np.ndarray:
    return np.where(rng.random(shape) < 0.5, form.largest, form.smallest) * rng.choice([-1.0, 1.0], shape)


# Numbers that a format has, by its table of them.
CODE_RECIPES: dict[str, Callable[[np.random.Generator, tuple[int, ...], CodeFormat], np.ndarray]] = {
    "codes": lambda rng, shape, form: rng.choice(form.table[np.isfinite(form.table)], shape),
    "zeros": lambda rng, shape, form: np.zeros(shape),
    "largest": _largest_codes,
    "index": lambda rng, shape, form: form.nearest(index(rng, shape) * 8),
}


def make_codes(recipe: str, seed: int, shape: tuple[int, ...], form: CodeFormat) -> np.ndarray:
    """Numbers of a recipe in a format of a few bits, one to an element of its dtype in ``ml_dtypes``."""
    return CODE_RECIPES[recipe](np.random.default_rng(seed), shape, form).astype(np.dtype(form.name))
