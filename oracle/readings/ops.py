"""Primitives of attention whose error rule is not the composition of the rules of their parts.

Each has one meaning and, for the budget reading, one argument why its bound is smaller (or larger) than what the
mechanical rules would give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.readings.balls import balls, is_balls, midpoints
from oracle.readings.bounded import Bounded
from oracle.readings.rules import LARGEST_EXPONENT

__all__ = ["as_operand", "shifted_exponentials"]


def shifted_exponentials(scores: Any) -> tuple[Any, Any]:
    """Numerators of a softmax over the last axis, and the shift that was subtracted from the scores.

    Args:
        scores: (..., n), ``-inf`` for keys that do not take part. n may be 0.

    Returns:
        ``exp(scores - shift)`` (..., n) and ``shift`` (..., 1): the row's maximum, 0 for a row without keys. Any shift
        cancels in a softmax, so the shift carries no error in any reading.
    """
    if isinstance(scores, Bounded):
        return _bounded_exponentials(scores)
    shift = _row_shift(midpoints(scores) if is_balls(scores) else scores)
    if is_balls(scores):
        shift = balls(shift)
    with np.errstate(under="ignore"):
        return np.exp(scores - shift), shift


def as_operand(weights: Any) -> Any:
    """A value about to be fed to a matrix product: the contract may let a kernel round it to the operand format.

    The sum of the weights may be taken before or after that rounding, so a specification sums the result of this.
    """
    if not isinstance(weights, Bounded):
        return weights
    contract, largest_row = weights.contract, 1.0
    if contract.operand_spacing:
        # Weights normalised before the cast are smaller by the row's sum when they meet the format's spacing.
        largest_row = np.maximum(weights.value.sum(axis=-1, keepdims=True), 1.0)
    error = weights.error + contract.operand_spacing * largest_row * (weights.value > 0)
    return Bounded(weights.value, error, contract, operand=contract.operand)


def _row_shift(scores: np.ndarray) -> np.ndarray:
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    return np.where(np.isfinite(largest), largest, 0.0)


def _bounded_exponentials(scores: Bounded) -> tuple[Bounded, np.ndarray]:
    contract, shift = scores.contract, _row_shift(scores.value)
    unit = contract.unit_roundoff
    visible = scores.value > -np.inf
    distance = np.where(visible, shift - scores.value, 0.0)
    # The argument is rounded when the shift is subtracted, when log2(e) is folded in and, split over the tiles of an
    # online softmax, at each rescale (those parts add up to the distance). A split kernel passes through the logsumexp
    # of a part, whose own rounding is relative to its magnitude; it is stored and read back by each of two parts.
    argument_error = scores.error + unit * (6 * distance + 4 * np.abs(shift))
    # An online softmax multiplies what it has by exp(old maximum - new maximum) whenever the maximum rises.
    rescales = contract.roundings(_rising_maxima(scores.value)) * (contract.exp_error / unit + 2)
    relative = np.expm1(np.minimum(np.where(visible, argument_error, 0.0), LARGEST_EXPONENT)) + contract.exp_error + rescales
    with np.errstate(under="ignore"):
        weights = np.where(visible, np.exp(-distance), 0.0)
    return Bounded(weights, weights * relative + contract.flush * visible, contract), shift


def _rising_maxima(scores: np.ndarray) -> np.ndarray:
    """How often the running maximum rises along a row, forwards or backwards, whichever is more (..., 1)."""
    if scores.shape[-1] == 0:
        return np.zeros((*scores.shape[:-1], 1))

    def rises(row: np.ndarray) -> np.ndarray:
        running = np.maximum.accumulate(row, axis=-1)
        return (running[..., 1:] > running[..., :-1]).sum(axis=-1, keepdims=True)

    return np.maximum(rises(scores), rises(scores[..., ::-1]))
