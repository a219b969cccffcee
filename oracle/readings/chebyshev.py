"""Chebyshev sums, sum_k c_k T_k(t): a primitive, because their three-term recurrence has no bound by the rules of its parts.

Step by step the errors of b_k = c_k + 2 t b_{k+1} - b_{k+2} seem to grow like 3^n; in truth an error made at step k reaches the sum
multiplied by T_k(t), which is at most 1 (Clenshaw 1955, Math. Comp. 9, 118; Smoktunowicz 2002, BIT 42, 600). A forward
recurrence for T_k errs at step k by something that reaches the sum multiplied by b_k, so both are bounded by the sizes of the b_k, which
are known.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.readings.balls import balls, is_balls
from oracle.readings.bounded import Bounded
from oracle.readings.contract import LAMBDA
from oracle.readings.features import lifted, values_of
from oracle.readings.rules import finish

__all__ = ["chebyshev_sum", "clipped_to", "interpolation_coefficients"]

# Of b_k (or T_k): two products with powers of two, of which one rounds, two differences, and the rounding of t once more.
STEP_ROUNDINGS = 5

# cos(k arccos t): k times an angle up to pi that is rounded twice, once when it is found and once as a product, and two for the cosine.
ANGLE_ROUNDINGS, COSINE_ROUNDINGS = 2, 4

# A node low + (high - low) (1 + cos) / 2 is rounded three times before its exponential is taken.
NODE_ROUNDINGS = 3


def interpolation_coefficients(function: Any, degree: int, domain: tuple[float, float], nodes: str, like: Any) -> np.ndarray:
    """Coefficients c_0 to c_n of the polynomial of a degree that agrees with a function at Chebyshev points, the half of c_0 taken.

    Args:
        function: of an array of points.
        degree: n; there are n + 1 points.
        domain: the interval in which they lie.
        nodes: ``roots`` of T_{n+1}, cos((2j + 1) pi / (2n + 2)), or ``extrema`` of T_n, cos(j pi / n); of degree 0, its middle.
        like: an array of the reading.

    Returns:
        (n + 1,) exact numbers of the reading: of balls, or of its floats.
    """
    cosines, weights = _cosines(degree, nodes, like)  # (n + 1 coefficients, n + 1 points)
    low, high = (lifted(np.asarray(end), like) for end in domain)
    points = (low + high) / 2 + (high - low) / 2 * cosines[1 if degree else 0] * (1 if degree else 0)
    return np.asarray(weights * (cosines * function(points)[None, :])).sum(axis=-1)


def _cosines(degree: int, nodes: str, like: Any) -> tuple[np.ndarray, np.ndarray]:
    """cos(k theta_j), and what each term of the sum over j weighs in c_k."""
    order, point = np.arange(degree + 1)[:, None], np.arange(degree + 1)[None, :]
    if nodes == "roots" or degree == 0:
        turns, half_circle = order * (2 * point + 1), 2 * degree + 2
        weights = np.where(order == 0, 1.0, 2.0) * np.ones(point.shape)
        count = degree + 1
    else:
        turns, half_circle = order * point, degree
        ends = [0, degree]
        weights = np.where(np.isin(order, ends), 1.0, 2.0) * np.where(np.isin(point, ends), 0.5, 1.0)
        count = degree
    # Whole turns are taken off while they are integers.
    angles = lifted(np.asarray(turns % (2 * half_circle), dtype=np.float64), like) * (_pi(like) / half_circle)
    return np.cos(angles), lifted(weights, like) / count


def _pi(like: Any) -> Any:
    if is_balls(like):
        from flint import arb

        return arb.pi()
    return 4 * np.arctan(values_of(like).dtype.type(1))


def clenshaw(coefficients: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The sum, from the last coefficient to the first."""
    after, latest = 0 * t, 0 * t
    for coefficient in coefficients[:0:-1]:
        after, latest = latest, coefficient + 2 * t * latest - after
    return coefficients[0] + t * latest - after


def _running(coefficients: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The sum, its derivative sum_k k c_k U_{k-1}, and the sums of the |b_k| and of their squares."""
    after, latest, slope_after, slope = (np.zeros_like(t) for _ in range(4))
    total, squares = np.zeros_like(t), np.zeros_like(t)
    for order in range(len(coefficients) - 1, 0, -1):
        after, latest = latest, coefficients[order] + 2 * t * latest - after
        slope_after, slope = slope, order * coefficients[order] + 2 * t * slope - slope_after
        total += np.abs(latest)
        squares += latest * latest
    return coefficients[0] + t * latest - after, slope, total, squares


def chebyshev_sum(coefficients: np.ndarray, t: Any, spread: float = 0.0) -> Any:
    """sum_k c_k T_k(t) for t in [-1, 1].

    Args:
        coefficients: (n + 1,), from `interpolation_coefficients`.
        t: of any shape; a `Bounded` one may stick out by its error.
        spread: relative error of the values from which a program computes the coefficients, in unit roundoffs.
    """
    if not isinstance(t, Bounded):
        if is_balls(t):
            coefficients = coefficients if is_balls(coefficients) else balls(coefficients)
        return clenshaw(coefficients, t)
    contract, degree = t.contract, len(coefficients) - 1
    value, slope, total, squares = _running(coefficients, t.value)
    sizes, order = np.abs(coefficients), np.arange(degree + 1)
    rounded = STEP_ROUNDINGS * np.minimum(total, LAMBDA * np.sqrt(squares))
    rounded += (sizes * (ANGLE_ROUNDINGS * np.pi * order + COSINE_ROUNDINGS)).sum()
    # The coefficients may come from values at the points that are as inexact as the sum, by cosines of rounded angles; or the
    # polynomial may be taken from those values directly. An error of the values grows by Lebesgue's constant at most.
    lebesgue = 2 / np.pi * np.log(degree + 1) + 1
    rounded += lebesgue * spread * sizes.sum() + LAMBDA * ANGLE_ROUNDINGS * np.pi * degree / 2 * sizes.max()
    error = contract.unit_roundoff * rounded + contract.gamma(degree + 1) * sizes.sum()
    moved = t.full_error
    curve = (sizes * order**2 * np.maximum(order**2 - 1, 0)).sum() / 3  # |T_k''|, by Markov's inequality
    with np.errstate(over="ignore"):
        error = error + moved * (np.abs(slope) + moved * curve) + contract.flush * (degree + 1)
    return finish(value, error, contract)


def clipped_to(x: Any, domain: tuple[float, float]) -> Any:
    """x, or the end of the interval beyond which it lies; there its error no longer counts."""
    low, high = (lifted(np.asarray(end), x) for end in domain)
    if is_balls(x):
        plain = values_of(x)
        return np.where(plain < domain[0], low, np.where(plain > domain[1], high, x))
    if not isinstance(x, Bounded):
        return np.minimum(np.maximum(x, low), high)
    value, error = np.minimum(np.maximum(x.value, low), high), x.full_error
    reach = [np.abs(np.minimum(np.maximum(x.value + sign * error, low), high) - value) for sign in (-1, 1)]
    ends = x.contract.unit_roundoff * np.maximum(np.abs(low), np.abs(high)) * (np.maximum(*reach) > 0)
    outside = x.contract.unit_roundoff * np.abs(value) * ((value == low) | (value == high))
    return Bounded(value, np.maximum(*reach) + ends + outside, x.contract)
