"""Recipes for masks, True where a key may be read; queries and keys are the last two axes."""

from __future__ import annotations

import numpy as np

from conformance.cases.values import Maker

__all__ = ["MASK_RECIPES", "make_mask"]


def _random_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.random(shape) < rng.choice([0.2, 0.5, 0.8])


def _full(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, dtype=bool)


def _empty(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, dtype=bool)


def _empty_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    keep = rng.random((*shape[:-1], 1)) < 0.6
    return (rng.random(shape) < 0.6) & keep


def _padding_right(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    rows = (*shape[:-2], *([1] if len(shape) > 1 else []), 1)
    # Some sequences fill the whole length: an implementation may look at one of them only.
    visible = np.where(rng.random(rows) < 0.35, shape[-1], rng.integers(0, shape[-1] + 1, rows))
    return np.broadcast_to(np.arange(shape[-1]) < visible, shape).copy()


def _padding_left(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return _padding_right(rng, shape)[..., ::-1].copy()


def _single_key(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    chosen = rng.integers(0, max(shape[-1], 1), (*shape[:-1], 1))
    return np.broadcast_to(np.arange(shape[-1]) == chosen, shape).copy()


def _checkerboard(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (np.indices(shape).sum(axis=0) + rng.integers(2)) % 2 == 0


def _blocks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Packed documents: a query sees the keys of its own segment; whole tiles stay empty."""
    size = int(rng.choice([size for size in (2, 3, 8, 16, 32, 64) if size < max(shape[-1], 3)]))
    if len(shape) < 2:
        return np.arange(shape[-1]) // size % 2 == 0
    queries, keys = np.arange(shape[-2]) // size, np.arange(shape[-1]) // size
    return np.broadcast_to(queries[:, None] == keys[None, :], shape).copy()


def _first_full(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The first sequence hides nothing, the others do: an implementation may decide by the first for all."""
    mask = _padding_right(rng, shape) if len(shape) > 1 else _full(rng, shape)
    mask[:1] = True
    return mask


def _late(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Only the last keys are visible: the first tiles are empty."""
    visible = int(rng.integers(1, 4))
    return np.broadcast_to(np.arange(shape[-1]) >= shape[-1] - visible, shape).copy()


MASK_RECIPES: dict[str, Maker] = {
    "random": _random_mask, "full": _full, "empty": _empty, "empty_rows": _empty_rows, "padding_right": _padding_right,
    "padding_left": _padding_left, "single_key": _single_key, "checkerboard": _checkerboard, "blocks": _blocks, "late": _late,
    "first_full": _first_full,
}  # fmt: skip


def make_mask(recipe: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """A bool array of a recipe."""
    return MASK_RECIPES[recipe](np.random.default_rng(seed), shape)
