"""Primitives of attention whose error rule is not the composition of the rules of their parts.

Each has one meaning and, for the budget reading, one argument why its bound is smaller (or larger) than what the
mechanical rules would give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.readings.balls import balls, is_balls, midpoints
from oracle.readings.bounded import Bounded
from oracle.readings.perturbations import perturb
from oracle.readings.perturbed import Perturbed
from oracle.readings.rules import exponential_error

__all__ = [
    "FARTHEST", "as_operand", "as_stored", "constants", "logarithm", "number", "probabilities", "rms_normalised", "rounded_again",
    "shifted_exponentials", "square_root",
]  # fmt: skip

# At this distance from the maximum a weight is far below every format's smallest number.
FARTHEST = 800.0


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
    if isinstance(scores, Perturbed):
        return _perturbed_exponentials(scores)
    shift = _row_shift(midpoints(scores) if is_balls(scores) else scores)
    if is_balls(scores):
        shift = balls(shift)
    with np.errstate(under="ignore"):
        return np.exp(scores - shift), shift


def number(x: float, like: Any) -> Any:
    """A number in the arithmetic of a reading, so that a constant computed from it is as accurate as the reading is."""
    if is_balls(like):
        return balls(np.asarray(x, dtype=np.float64))
    return getattr(like, "value", like).dtype.type(x)  # `Bounded` and its like hold their numbers in `value`


def constants(values: np.ndarray, like: Any) -> Any:
    """Exact numbers that enter a computation as inputs do: what is computed from them has the errors of the reading."""
    values = np.asarray(values, dtype=np.float64)
    if hasattr(like, "lifted"):
        return like.lifted(values)
    return balls(values) if is_balls(like) else values.astype(like.dtype)


def logarithm(x: Any) -> Any:
    """Natural logarithm. Where a selection or an empty sum left plain numbers among balls, they become balls first."""
    if not is_balls(x):
        return np.log(x)
    plain = np.array([not hasattr(element, "log") for element in x.ravel()], dtype=bool).reshape(x.shape)
    if plain.any():
        x = x.copy()
        x[plain] = balls(x[plain].astype(np.float64))
    return np.log(x)


def square_root(x: Any) -> Any:
    """Of what is at least 0, however little of that is left to see: a ball around 0 has a root from 0 to that of its end."""
    if not is_balls(x):
        return np.sqrt(np.maximum(x, 0.0))
    from flint import arb

    def root(ball: Any) -> Any:
        if not hasattr(ball, "lower"):
            return arb(float(ball)).sqrt()
        if ball.lower() > 0:
            return ball.sqrt()
        half = ball.upper().max(arb(0)).sqrt().upper() / 2
        return arb(half.mid(), half.upper())

    made = np.empty(x.shape, dtype=object)
    made.ravel()[:] = [root(ball) for ball in x.ravel()]
    return made


def as_operand(weights: Any, unit: float = 0.0, spacing: float = 0.0) -> Any:
    """A value about to be fed to a matrix product: the contract may let a kernel round it to the operand format.

    The sum of the weights may be taken before or after that rounding, so a specification sums the result of this.

    Args:
        weights: of a softmax, not normalised.
        unit, spacing: unit roundoff and half the subnormal spacing of a format to which the method itself lets a kernel round the
            weights, whatever the contract says, under the running maximum of a tile.
    """
    if isinstance(weights, Perturbed):
        contract = weights.noise.contract
        spacing = max(contract.weight_spacing, contract.operand_spacing, spacing)
        return rounded_again(weights, max(contract.operand, contract.weight, unit), spacing)
    if not isinstance(weights, Bounded):
        return weights
    contract = weights.contract
    unit, spacing = max(contract.operand, contract.weight, unit), max(contract.weight_spacing, spacing)
    if not unit and not spacing:
        return weights
    # Weights normalised before the cast are smaller by the row's sum when they meet the format's spacing.
    largest_row = np.maximum(weights.value.sum(axis=-1, keepdims=True), 1.0)
    error = weights.error + (contract.operand_spacing * largest_row + spacing) * (weights.value > 0)
    return Bounded(weights.value, error, contract, operand=unit)


def as_stored(x: Any) -> Any:
    """An intermediate result that a kernel may keep in the operand format, in which a later product reads it.

    What that format cannot hold becomes infinite.
    """
    if isinstance(x, Perturbed):
        return rounded_again(x, x.noise.contract.operand, x.noise.contract.operand_spacing)
    if not isinstance(x, Bounded) or not x.contract.operand:
        return x
    error = x.full_error + x.contract.operand_spacing * (x.value != 0)
    error = np.where(np.abs(x.value) + error <= x.contract.operand_largest, error, np.inf)
    return Bounded(x.value, error, x.contract, operand=x.contract.operand)


def probabilities(weights: Any, total: Any) -> Any:
    """Weights over their sum: however wrong each of them is, what a kernel computes lies between 0 and 1."""
    quotient = weights / total
    if not isinstance(quotient, Bounded):
        return quotient
    return Bounded(quotient.value, np.fmin(quotient.full_error, 1 + 2 * quotient.contract.unit_roundoff), quotient.contract)


def rms_normalised(x: Any, eps: float) -> Any:
    """Rows over their root mean square, x / sqrt(mean(x^2) + eps), over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4).

    However wrong the rows are, what a kernel computes for n elements lies between -sqrt(n) and sqrt(n).
    """
    width = x.shape[-1]
    mean = np.sum(x * x, axis=-1, keepdims=True) / max(width, 1)
    out = x / np.sqrt(mean + number(eps, like=x))
    if not isinstance(out, Bounded):
        return out
    contract = out.contract
    farthest = np.abs(out.value) + np.sqrt(width) * (1 + contract.gamma(width) + 4 * contract.unit_roundoff)
    known = np.isfinite(mean.full_error) & np.isfinite(x.full_error)  # where squares overflow, the quotient may be NaN
    return Bounded(out.value, np.where(known, np.fmin(out.full_error, farthest), np.inf), contract)


def rounded_again(x: Perturbed, unit: float, spacing: float) -> Perturbed:
    """Samples rounded once more, to a narrower format: by ``unit`` relatively and by ``spacing`` in any case; 0 for none."""
    if not unit and not spacing:
        return x
    with np.errstate(invalid="ignore"):
        return perturb(x.samples, np.where(x.samples == 0, 0.0, unit * np.abs(x.samples) + spacing), x.noise)


def _row_shift(scores: np.ndarray) -> np.ndarray:
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    return np.where(np.isfinite(largest), largest, 0.0)


def _bounded_exponentials(scores: Bounded) -> tuple[Bounded, np.ndarray]:
    contract, shift = scores.contract, _row_shift(scores.value)
    unit = contract.unit_roundoff
    # An online softmax multiplies what it has by exp(old maximum - new maximum) whenever the maximum rises.
    rescales = contract.roundings(_rising_maxima(scores.value)) * (contract.exp_error / unit + 2)
    # The argument is rounded when the shift is subtracted, when log2(e) is folded in and, split over the tiles of an
    # online softmax, at each rescale (those parts add up to the distance). A split kernel passes through the logsumexp
    # of a part, whose own rounding is relative to its magnitude; it is stored and read back by each of two parts.
    argument = scores.value - shift  # minus the distance to the maximum
    error = np.maximum(argument, -FARTHEST)
    error *= -6 * unit
    error += scores.error
    error *= 1 + 6 * unit  # what is rounded is the erroneous argument
    error += 4 * unit * np.abs(shift) + contract.exp_error + rescales
    with np.errstate(under="ignore"):
        weights = np.exp(argument)
        error = exponential_error(argument, weights, error)
    # Fast exponentials build 2**(n - 1) first, so they flush to zero one binade above the smallest normal number.
    flushed = 2 * contract.flush
    error += flushed * (scores.value > -np.inf) if np.isneginf(scores.value.min(initial=0.0)) else flushed
    return Bounded(weights, error, contract), shift


def _perturbed_exponentials(scores: Perturbed) -> tuple[Perturbed, np.ndarray]:
    contract, shift = scores.noise.contract, _row_shift(scores.value)
    unit = contract.unit_roundoff
    rescales = contract.roundings(_rising_maxima(scores.value)) * (contract.exp_error / unit + 2)
    with np.errstate(invalid="ignore", under="ignore", over="ignore"):
        argument = scores.samples - shift
        error = 6 * unit * np.minimum(np.abs(argument), FARTHEST) + 4 * unit * np.abs(shift) + contract.exp_error + rescales
        weights = np.exp(argument)
        present = scores.samples != -np.inf
        amplitude = np.where(present, weights * np.expm1(error) + 2 * contract.flush, 0.0)
    return perturb(weights, amplitude, scores.noise), shift


def _rising_maxima(scores: np.ndarray) -> np.ndarray:
    """How often the running maximum rises along a row, forwards or backwards, whichever is more (..., 1)."""
    by_key = np.ascontiguousarray(np.moveaxis(scores, -1, 0))  # so that each step is one operation on whole rows
    if len(by_key) == 0:
        return np.zeros((*scores.shape[:-1], 1))
    return np.maximum(_rises(by_key), _rises(by_key[::-1]))[..., None]


def _rises(steps: np.ndarray) -> np.ndarray:
    running, rises = steps[0].copy(), np.zeros(steps.shape[1:])
    for step in steps[1:]:
        rises += step > running
        np.maximum(running, step, out=running)
    return rises
