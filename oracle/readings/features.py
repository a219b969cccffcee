"""Primitives of linear and kernel attention whose error rule is not the composition of the rules of their parts.

Beside those of `oracle.readings.ops`: features that a 16-bit kernel stores before it multiplies them, sums that may be
taken in another order, sigmoids, exponentials of which a common factor cancels, and the small number that guards a division.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.readings.balls import balls, is_balls, midpoints
from oracle.readings.bounded import Bounded
from oracle.readings.contract import PrecisionContract
from oracle.readings.ops import as_stored
from oracle.readings.perturbations import perturb
from oracle.readings.perturbed import Perturbed
from oracle.readings.rules import finish

__all__ = [
    "any_order", "as_matrix", "constant", "guarded_quotient", "is_positive", "largest_stored", "lifted", "narrowed",
    "shifted_features", "sigmoid", "values_of", "within_range",
]  # fmt: skip

# A sigmoid as 1 / (1 + exp(-x)): the exponential, the sum, the quotient (by a reciprocal and a product) and, as exp(x) / (1 + exp(x))
# on the other side, one exponential more.
SIGMOID_ROUNDINGS = 4

# The maximum that is subtracted from an exponent is subtracted from its parts in any order: three differences round numbers of its size,
# and one more where log2(e) is folded in.
SHIFT_ROUNDINGS = 4


def values_of(x: Any) -> np.ndarray:
    """The numbers of an array in any reading, as floats."""
    if is_balls(x):
        return midpoints(x)
    return np.asarray(getattr(x, "value", x))  # `Bounded` and its like hold their numbers in `value`


def is_positive(x: Any) -> np.ndarray:
    """Which elements of an argument are above zero: a fact of the input, in every reading."""
    return np.asarray(values_of(x) > 0)


def lifted(x: np.ndarray, like: Any) -> Any:
    """Exact numbers in the arithmetic of a reading."""
    if is_balls(like):
        return balls(np.asarray(x, dtype=np.float64))
    return np.asarray(x, dtype=values_of(like).dtype)


def constant(x: float, like: Any) -> Any:
    """A number of the caller's, such as eps, which a program rounds to the format in which it computes."""
    if not isinstance(like, Bounded):
        return lifted(np.asarray(x), like) if isinstance(like, np.ndarray) else float(x)
    exact, contract = lifted(np.asarray(x), like), like.contract
    spacing = contract.flush if 0 < abs(x) < contract.accumulate.smallest_normal else 0.0
    return Bounded(exact, np.asarray(contract.unit_roundoff * abs(x) + spacing), contract)


def within_range(x: Any, *intermediates: Any) -> Any:
    """A result, unbounded where something that a kernel may store on the way leaves the range of its format: float16 ends at 65504.

    Args:
        x: the result.
        intermediates: values that broadcast against it, in the format of operands where the contract has one.
    """
    if not isinstance(x, Bounded):
        return x
    largest, error = largest_stored(x.contract), np.broadcast_to(x.error, x.shape)
    for intermediate in intermediates:
        reach = np.abs(values_of(intermediate)) + (intermediate.full_error if isinstance(intermediate, Bounded) else 0.0)
        error = np.where(reach <= largest, error, np.inf)  # not: > largest, which a NaN is not
    return Bounded(x.value, error, x.contract, x.operand)


def largest_stored(contract: PrecisionContract) -> float:
    """The largest number that a kernel can store between two products."""
    return min(contract.operand_largest, contract.accumulate.largest)


def as_matrix(x: Any) -> Any:
    """A value of either sign that is about to enter a matrix product, which a kernel of 16 bits may store in 16 bits first.

    As `oracle.readings.ops.as_operand`, for what is no weight of a softmax: it may exceed 1, and the range of float16.
    """
    if isinstance(x, Perturbed):
        return as_stored(x)
    if not isinstance(x, Bounded) or not x.contract.operand:
        return x
    contract = x.contract
    spacing = contract.operand_spacing * (x.value != 0)
    stored = Bounded(x.value, x.full_error + spacing, contract, operand=contract.operand)
    return within_range(stored, stored)


def narrowed(x: Bounded) -> Bounded:
    """The same numbers in float64, to bound errors with."""
    return Bounded(x.value.astype(np.float64, copy=False), x.error.astype(np.float64, copy=False), x.contract, x.operand)


def any_order(*results: Any) -> Any:
    """One exact result whose sums different kernels take in different orders, each with its own bound: the largest of them."""
    first = results[0]
    if not isinstance(first, Bounded):
        return first
    return Bounded(first.value, np.maximum.reduce([np.broadcast_to(one.full_error, first.shape) for one in results]), first.contract)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), accurate relative to itself: 1 + tanh(x / 2) cancels for x << 0 and is no way to compute it."""
    if isinstance(x, Bounded):
        return _bounded_sigmoid(x)
    positive = is_positive(x)
    tail = np.exp(np.where(positive, -x, x))
    return np.where(positive, 1 / (1 + tail), tail / (1 + tail))


def _bounded_sigmoid(x: Bounded) -> Bounded:
    contract, value = x.contract, sigmoid(x.value)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # 0 * inf, which is not looked at below
        # The logarithm of a sigmoid has a slope between 0 and 1, which grows at most by e^error on the way to a smaller argument.
        argument = x.full_error + 3 * contract.unit_roundoff * (np.abs(x.value) + x.full_error)
        slope = np.minimum(sigmoid(-x.value) * np.exp(np.minimum(argument, 1.0)), 1.0)
        growth = np.expm1(np.minimum(argument * slope + contract.exp_error, 700.0))
    error = np.where(argument < np.inf, np.minimum(value * growth, 1.0), 1.0)
    # exp(-x) may overflow for x << 0, which makes the sigmoid 0.
    return finish(value, error + 2 * contract.flush, contract, roundings=SIGMOID_ROUNDINGS)


def shifted_features(exponents: Any, axes: tuple[int, ...]) -> tuple[Any, np.ndarray]:
    """Exponentials under a common factor that cancels: exp(exponents - shift), and the shift, their maximum over some axes.

    Whatever is subtracted cancels, so the shift has no error; that the exponents are rounded when it is, has.
    """
    plain = values_of(exponents)
    shift = plain.max(axis=axes, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(shift), shift, 0.0)
    argument = exponents - lifted(shift, exponents)
    if isinstance(argument, Bounded):
        rounded = SHIFT_ROUNDINGS * argument.contract.unit_roundoff * np.abs(shift)
        argument = Bounded(argument.value, argument.error + rounded, argument.contract)
    if isinstance(argument, Perturbed):
        rounded = SHIFT_ROUNDINGS * argument.noise.contract.unit_roundoff * np.abs(shift)
        argument = perturb(argument.samples, rounded, argument.noise)
    with np.errstate(under="ignore"):
        return np.exp(argument), shift


def guarded_quotient(
    total: Any, divisor: Any, eps: float, shifts: tuple[np.ndarray, ...], factors: tuple[np.ndarray, np.ndarray], terms: float
) -> Any:
    """total / (divisor + eps), for sums that are given without common factors, which eps does not have.

    Args:
        total, divisor: sums without the factors, (..., e) and (..., 1).
        eps: what is added to the divisor that has its factors.
        shifts: natural logarithms of the factors, each broadcastable to the divisor.
        factors: logarithms of the smallest and of the largest factor that a kernel may leave out of both sums before it adds eps.
            The value is that of a kernel that leaves out none; the budget reaches to those that leave out either.
        terms: how many terms the total has, times their size next to the divisor's.
    """
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        if not isinstance(divisor, Bounded):
            # Each shift is exact, their sum in floats is not.
            exponent = sum(lifted(-shift, divisor) for shift in shifts)
            quotient = total / (divisor + lifted(np.asarray(eps), divisor) * np.exp(exponent))
            if not isinstance(quotient, Perturbed):
                return quotient
        shift = sum(shifts)
        value = total.value / (divisor.value + eps * np.exp(-shift))
        lightest, heaviest = (eps * np.exp(factor - shift) for factor in (np.minimum(factors[0], 0.0), np.maximum(factors[1], 0.0)))
        if isinstance(divisor, Perturbed):
            ends = [total.value / (divisor.value + guard) for guard in (lightest, heaviest)]
            return perturb(quotient.samples, np.maximum.reduce([np.abs(end - value) for end in ends]), quotient.noise)
        # The heavier the guard, the less the errors of the sums matter.
        unit = divisor.contract.unit_roundoff
        most = total / (divisor + Bounded(lightest, unit * lightest, divisor.contract))
        least = total.value / (divisor.value + heaviest)
        error = most.error + np.maximum(np.abs(most.value - value), np.abs(least - value))
        # Without a large factor, terms are so small that they may underflow on the way.
        lost = terms * divisor.contract.flush * np.exp(np.maximum(factors[1], 0.0) - shift)
        error = error + lost / (divisor.value + heaviest)
    return Bounded(value, np.where(np.isnan(error), np.inf, error), divisor.contract)
