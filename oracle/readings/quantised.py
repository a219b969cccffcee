"""Rounding to a format of a few bits as a part of the meaning of a method, in every reading.

A quantised value is a step function of what is rounded. A kernel computes that with an error of its own, so a value that lies
within its error of a boundary may fall to either side: that is one quantum, and no mistake; two quanta are. Everywhere else the
code is exact, however coarse the format. So the budget of a quantised value is not a multiple of the quantum: it is zero for
nearly all elements, and a whole quantum for the few at a boundary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.codes import CodeFormat
from oracle.readings.balls import balls, is_balls, midpoints, radii
from oracle.readings.bounded import Bounded
from oracle.readings.features import lifted, values_of
from oracle.readings.perturbed import Perturbed

__all__ = [
    "Stepped",
    "divided",
    "exactly",
    "exponent_of",
    "largest_magnitude",
    "largest_number",
    "meaningless",
    "power_of_two",
    "quantised",
    "special",
]


class Stepped(Bounded):
    """Quantised values: an error of theirs is a step that may be taken or not, which says nothing of how well a kernel rounds."""

    __slots__ = ()


def quantised(x: Any, form: CodeFormat) -> Any:
    """The nearest numbers of a format, of two equally near the one with an even code; what is too large becomes the largest.

    Args:
        x: in any reading, in units of the format.
        form: the format.
    """
    if isinstance(x, Bounded):
        return _steps(x.value, x.full_error, x, form)
    if isinstance(x, Perturbed):
        return Perturbed(form.nearest(x.samples), x.noise)
    return _quantised_balls(x, form) if is_balls(x) else form.nearest(x)


def _steps(value: np.ndarray, error: np.ndarray, like: Bounded, form: CodeFormat) -> Stepped:
    nearest = form.nearest(value)
    with np.errstate(invalid="ignore"):
        # Rounding and saturating never turn around an order, so the ends of an interval bound all of it.
        steps = np.maximum(form.nearest(value + error) - nearest, nearest - form.nearest(value - error))
    # Whatever is wrong with what is rounded, a code is one of the format's numbers.
    steps = np.where(error < np.inf, steps, form.largest + np.abs(nearest))
    return Stepped(nearest, steps, like.contract)


def special(x: Any, codes: Any, form: CodeFormat) -> Any:
    """Codes of a format that does not saturate: NaN in e4m3fn and infinity in e5m2 for what is too large; others as they are.

    Args:
        x: what was rounded, in any reading.
        codes: `quantised` of it.
        form: the format.
    """
    beyond = {"float8_e4m3fn": np.nan, "float8_e5m2": np.inf}.get(form.name)
    if beyond is None:
        return codes
    # Halfway to the number that would come next. That tie goes to the even code: to the largest number of e4m3fn, away from that of e5m2.
    limit = form.largest + np.ldexp(0.5, int(np.frexp(form.largest)[1]) - 1 - form.mantissa)
    values, error = values_of(x), x.full_error if isinstance(x, Bounded) else np.zeros(x.shape)
    too_large = np.abs(values) >= limit if form.name == "float8_e5m2" else np.abs(values) > limit
    numbers = np.where(too_large, np.copysign(beyond, values), values_of(codes))
    if not isinstance(codes, Bounded):
        return lifted(numbers, codes)
    unsure = ~(np.abs(np.abs(values) - limit) > error) & (error > 0)
    return Stepped(numbers, np.where(unsure, np.inf, np.where(too_large, 0.0, codes.full_error)), codes.contract)


def _quantised_balls(x: np.ndarray, form: CodeFormat) -> np.ndarray:
    """Exact numbers; where a ball holds a boundary, a ball that holds both sides of it."""
    middle, radius = midpoints(x), radii(x)
    low, high = form.nearest(np.nextafter(middle - radius, -np.inf)), form.nearest(np.nextafter(middle + radius, np.inf))
    chosen = balls(form.nearest(middle))
    for index in np.argwhere(low != high):
        at = tuple(index)
        below, above, boundary = balls(np.array([low[at], high[at], (low[at] + high[at]) / 2]))
        single = 4 * radius[at] < form.smallest  # no second boundary is within reach
        if single and x[at] > boundary:
            chosen[at] = above
        elif single and x[at] < boundary:
            chosen[at] = below
        elif not (single and x[at] == boundary):
            chosen[at] = below.union(above)
    return chosen


def divided(x: Any, scale: Any) -> Any:
    """x / scale; exact where the scale is a power of two that is known exactly, as a shift of the exponent is."""
    if not isinstance(x, Bounded):
        return x / scale
    value, error = values_of(scale), scale.full_error if isinstance(scale, Bounded) else np.zeros(np.shape(scale))
    shifts = (error == 0) & (np.frexp(np.abs(value))[0] == 0.5)
    quotient = x / scale
    if not shifts.any():
        return quotient
    exact = x.value / value
    flushed = np.where((np.abs(exact) < x.contract.flush) & (exact != 0), x.contract.flush, 0.0)
    with np.errstate(invalid="ignore"):
        shifted = x.full_error / np.abs(value) + flushed
    return Bounded(quotient.value, np.where(shifts, shifted, quotient.full_error), x.contract)


def largest_magnitude(x: Any, axes: tuple[int, ...]) -> Any:
    """The largest absolute value along some axes, which stay with size 1; 0 where there is none."""
    size = tuple(1 if axis in axes else length for axis, length in enumerate(x.shape))
    if 0 in x.shape:
        empty = np.zeros(size, dtype=values_of(x).dtype)
        return Bounded(empty, np.zeros(size), x.contract) if isinstance(x, Bounded) else balls(empty) if is_balls(x) else empty
    magnitude = np.abs(x)
    for axis in axes:
        magnitude = np.max(magnitude, axis=axis, keepdims=True)
    return magnitude


def exactly(x: np.ndarray, like: Any) -> Any:
    """Numbers without error in the reading of another array."""
    if isinstance(like, Bounded):
        return Bounded(x, np.zeros(()), like.contract)
    if isinstance(like, Perturbed):
        return Perturbed.exact(x, like.noise)
    return balls(x) if is_balls(like) else x


def meaningless(x: Any, where: np.ndarray, largest: float) -> Any:
    """Numbers of which some mean nothing, as the scale of nothing but zeros: a kernel may return any that is finite, but no NaN.

    Args:
        x: what is returned, in any reading.
        where: which of them mean nothing, in a shape that broadcasts.
        largest: number of their format.
    """
    if not isinstance(x, Bounded):
        return x
    # A quarter: an error that reaches the end of a format exempts an element from judgement, NaN included.
    return type(x)(x.value, np.where(where, largest / 4, x.full_error), x.contract)


def largest_number(x: Any) -> float:
    """The largest number of the format in which a kernel computes; infinity where no kernel does."""
    return x.contract.accumulate.largest if isinstance(x, Bounded) else np.inf


def exponent_of(x: np.ndarray) -> np.ndarray:
    """floor(log2(x)) of positive numbers, exactly; anything for others."""
    return np.frexp(x)[1] - 1


def power_of_two(largest: Any, shift: int, form: CodeFormat) -> Any:
    """2^(floor(log2(largest)) - shift) within the range of a format of powers of two, and 0 for 0.

    That is the scale of OCP Microscaling Formats 1.0, section 6.3, ``shift`` being the exponent of the elements' largest number. A
    largest magnitude whose own error reaches the next power of two makes either of two scales.
    """
    if isinstance(largest, Bounded):
        with np.errstate(invalid="ignore"):
            made = _power(largest.value, shift, form)
            ends = [_power(np.maximum(largest.value + sign * largest.full_error, 0.0), shift, form) for sign in (-1.0, 1.0)]
            return Bounded(made, np.maximum(ends[1] - made, made - ends[0]), largest.contract)
    if isinstance(largest, Perturbed):
        return Perturbed(_power(np.abs(largest.samples), shift, form), largest.noise)
    if is_balls(largest):
        return balls(_power(midpoints(largest), shift, form))
    return _power(largest, shift, form)


def _power(largest: np.ndarray, shift: int, form: CodeFormat) -> np.ndarray:
    exponent = np.clip(exponent_of(largest) - shift, -form.bias, form.bias)
    return np.where(largest > 0, np.ldexp(np.ones((), np.asarray(largest).dtype), exponent), 0.0)
