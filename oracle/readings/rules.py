"""How each NumPy operation propagates rounding error: the standard model fl(a op b) = (a op b)(1 + delta).

Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 2.2 (the model), 3.1 (inner products), 3.3
(running error analysis). First-order terms are kept together with their products (the operands' errors with each other,
a rounding with the error of what it rounds), so a rule stays sound when the errors are large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from oracle.readings.bounded import Bounded, UnboundedOperation, rule, split
from oracle.readings.contract import LAMBDA, PrecisionContract
from oracle.readings.terms import product_terms, terms_of, tiny_terms

__all__ = ["finish"]

# A cap that keeps an error which has long swallowed its value from overflowing, so that 0 times it stays 0.
LARGEST = 1e300

# Below this, exp(e) - 1 <= e * (1 + e) is tight.
SMALL_EXPONENT = 1e-3


def contract_of(*operands: Any) -> PrecisionContract:
    """The contract of the first bounded operand."""
    return next(operand.contract for operand in operands if isinstance(operand, Bounded))


def magnitudes(values: np.ndarray) -> np.ndarray:
    """Absolute values, without a copy where there is nothing to do; not to be written to."""
    return values if values.min(initial=0.0) >= 0 else np.abs(values)


def finish(value: np.ndarray, error: np.ndarray, contract: PrecisionContract, roundings: float = 1.0) -> Bounded:
    """Add the rounding of a result; outside the range of the accumulation format anything may come out.

    The rounding is relative to what was computed, which may exceed the value by the error. ``error`` is overwritten.
    """
    magnitude = np.abs(value)
    if error.shape != value.shape or error.dtype != value.dtype:
        error = np.broadcast_to(error, value.shape).astype(value.dtype)
    largest, unit = magnitude.max(initial=0.0), math.expm1(roundings * math.log1p(contract.unit_roundoff))
    infinite = None if largest < np.inf else (np.isinf(value), error == np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        error *= 1 + unit
        error += contract.flush if magnitude.min(initial=1.0) > 0 else contract.flush * (magnitude > 0)
        if unit:
            magnitude *= unit
            error += magnitude
        if not largest + error.max(initial=0.0) <= contract.accumulate.largest:
            error = np.where(np.abs(value) + error <= contract.accumulate.largest, error, np.inf)
    if infinite is not None:  # an exact -inf (a masked score) stays exact, a quotient that may be infinite does not
        error = np.where(infinite[0] & ~infinite[1], 0.0, error)
    return Bounded(value, error, contract)


@rule((np.add, "__call__"))
def add(a: Any, b: Any) -> Bounded:
    (av, ae), (bv, be) = split(a), split(b)
    return finish(av + bv, ae + be, contract_of(a, b))


@rule((np.subtract, "__call__"))
def subtract(a: Any, b: Any) -> Bounded:
    (av, ae), (bv, be) = split(a), split(b)
    return finish(av - bv, ae + be, contract_of(a, b))


@rule((np.multiply, "__call__"))
def multiply(a: Any, b: Any) -> Bounded:
    (av, ae), (bv, be) = split(a), split(b)
    with np.errstate(invalid="ignore"):  # 0 * inf, for an exact -inf times a constant: finish sees to it
        error = ae * np.abs(bv)
        if be.any():
            error = error + (np.abs(av) + ae) * be
        return finish(av * bv, error, contract_of(a, b))


@rule((np.true_divide, "__call__"))
def divide(a: Any, b: Any) -> Bounded:
    """As a reciprocal and a product, which many kernels form: two roundings, and the reciprocal has a range of its own."""
    (av, ae), (bv, be), contract = split(a), split(b), contract_of(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = av / bv
        margin = np.abs(bv) - be
        known = margin * contract.accumulate.largest > 1  # a divisor that may be zero leaves nothing known, 0 / 0 included
        error = np.where(known, (ae + np.abs(value) * be) / np.where(known, margin, 1.0), np.inf)
    subnormal = np.abs(bv) * contract.accumulate.smallest_normal > 1
    if np.any(subnormal):
        error = error + (np.abs(av) + ae) * subnormal * contract.flush
    return finish(value, error, contract, roundings=2.0)


@rule((np.negative, "__call__"))
def negative(a: Bounded) -> Bounded:
    return Bounded(-a.value, a.error, a.contract, a.operand)


@rule((np.absolute, "__call__"))
def absolute(a: Bounded) -> Bounded:
    return Bounded(np.abs(a.value), a.error, a.contract, a.operand)


@rule((np.maximum, "__call__"))
def maximum(a: Any, b: Any) -> Bounded:
    (av, ae), (bv, be) = split(a), split(b)
    return Bounded(np.maximum(av, bv), np.maximum(ae, be), contract_of(a, b))


@rule((np.minimum, "__call__"))
def minimum(a: Any, b: Any) -> Bounded:
    (av, ae), (bv, be) = split(a), split(b)
    return Bounded(np.minimum(av, bv), np.maximum(ae, be), contract_of(a, b))


def exponential_error(argument: np.ndarray, value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Error of ``value = exp(argument)`` for an error of the argument: exp(argument + error) - value.

    Not value * expm1(error), which is 0 for a value that underflows however large the error is. An argument of -inf has an
    exponential of exactly 0, whatever error is claimed for it.
    """
    if error.max(initial=0.0) < SMALL_EXPONENT:
        growth = error + 1
        growth *= error
        growth *= value
        return growth
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        growth = np.fmax(np.minimum(np.exp(argument + np.minimum(error, LARGEST)), LARGEST) - value, 0.0)
        return np.where(np.isinf(value), np.inf, growth) if value.max(initial=0.0) == np.inf else growth


@rule((np.exp, "__call__"))
def exp(a: Bounded) -> Bounded:
    contract, argument_error = a.contract, split(a)[1]
    with np.errstate(over="ignore", under="ignore"):
        value = np.exp(a.value)
    # The argument is rounded when it is formed and again when log2(e) is folded into it for exp2.
    rounded = 3 * contract.unit_roundoff * (np.where(np.isfinite(a.value), np.abs(a.value), 0.0) + argument_error)
    error = exponential_error(a.value, value, argument_error + rounded + contract.exp_error)
    return finish(value, error, contract, roundings=0)


@rule((np.log, "__call__"))
def log(a: Bounded) -> Bounded:
    with np.errstate(divide="ignore", invalid="ignore"):
        value, error = np.log(a.value), split(a)[1]
        relative = np.minimum(np.where(error > 0, error / a.value, 0.0), 1.0)
        # ln(x) by log2(x) * ln(2), whose log2 may keep only its absolute accuracy near x = 1.
        own = a.contract.exp_error * (1 + np.where(np.isfinite(value), np.abs(value), 0.0))
        return finish(value, own - np.log1p(-relative), a.contract, roundings=2.0)


@rule((np.tanh, "__call__"))
def tanh(a: Bounded) -> Bounded:
    value, error = np.tanh(a.value), split(a)[1]
    # The slope 1 - tanh^2 changes by less than the argument does.
    steepest = np.minimum(1.0 - value * value + error, 1.0)
    bound = np.minimum(error * steepest, 2.0) + a.contract.tanh_error
    return Bounded(value, np.where(error < np.inf, bound, np.inf) if error.max(initial=0.0) == np.inf else bound, a.contract)


def _trigonometric(function: np.ufunc) -> None:
    @rule((function, "__call__"))
    def wave(a: Bounded) -> Bounded:
        """The slope is at most 1, and no error leads out of the interval from -1 to 1."""
        with np.errstate(invalid="ignore"):
            value, error = function(a.value), split(a)[1]
        bound = np.minimum(error, 2.0) + a.contract.trigonometric_error
        return Bounded(value, np.where(error < np.inf, bound, np.inf) if error.max(initial=0.0) == np.inf else bound, a.contract)


for _wave in (np.cos, np.sin):
    _trigonometric(_wave)


@rule((np.sqrt, "__call__"))
def sqrt(a: Bounded) -> Bounded:
    """A negative argument, which only cancellation can produce, is for the specification to clamp."""
    value, error = np.sqrt(a.value), split(a)[1]
    # |sqrt(x+e) - sqrt(x)| = |e| / (sqrt(x+e) + sqrt(x)), and never more than sqrt(|e|)
    slope = np.divide(error, value, out=np.full(np.broadcast_shapes(error.shape, value.shape), np.inf), where=value > 0)
    return finish(value, np.minimum(slope, np.sqrt(error)), a.contract)


@rule((np.matmul, "__call__"))
def matmul(a: Any, b: Any) -> Bounded:
    contract, operand = contract_of(a, b), getattr(a, "operand", 0.0)
    av, ae = (a.value, a.error) if isinstance(a, Bounded) else split(a)
    bv, be = split(b)
    value = np.matmul(av, bv)
    if value.size == 0 or av.shape[-1] == 0:
        return Bounded(value, np.zeros(()), contract)
    left, right = magnitudes(av), magnitudes(bv)
    terms = product_terms(left, right, contract, operand)
    gamma, magnitude = contract.gamma(terms.rows.count[..., None], terms.dependent), terms.magnitude
    compounded = 1 + gamma.max() + operand  # those roundings apply to erroneous terms
    in_range = terms.rows.total.max() * right.max() <= contract.accumulate.largest
    with np.errstate(invalid="ignore"):  # an unbounded error times 0: finish sees to it
        if in_range and not operand and magnitude is None and gamma.shape[-1] == 1:
            carried = left * (gamma / compounded)  # one product for the rounding of the terms and for their errors
            carried += ae
            error = np.matmul(carried, right)
            error *= compounded
        else:
            magnitude = np.matmul(left, right) if magnitude is None else magnitude
            error = gamma * magnitude
            error += terms.lost
            if ae.any():
                error += np.matmul(np.broadcast_to(ae, av.shape), right) * compounded
            if operand:
                # One more rounding in each term: worst case for those that round alike, averaged over the others.
                likely = LAMBDA * np.sqrt(np.matmul(left * left, right * right)) + terms.rows.cast_mass[..., None] * magnitude
                error += operand * np.minimum(magnitude, likely)
            error = _within_range(magnitude, error, contract)
        if be.any():
            error += np.matmul(left + ae, np.broadcast_to(be, bv.shape)) * compounded
        error += contract.bias(value)
        flushed = contract.flush * av.shape[-1]  # each product may be
        error += flushed if error.min() > 0 else flushed * (error > 0)
    return finish(value, error, contract, roundings=0)


def _within_range(magnitude: np.ndarray, error: np.ndarray, contract: PrecisionContract) -> np.ndarray:
    """A sum whose terms together exceed the accumulation format may overflow on the way, whatever its value."""
    if magnitude.max(initial=0.0) <= contract.accumulate.largest:
        return error
    return np.where(magnitude <= contract.accumulate.largest, error, np.inf)


@rule((np.add, "reduce"), np.sum)
def total(a: Bounded, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, **_: Any) -> Bounded:
    contract = a.contract
    axes = tuple(range(a.ndim)) if axis is None else tuple(np.atleast_1d(axis) % a.ndim)
    last = np.moveaxis(a.value, axes, tuple(range(-len(axes), 0)))
    rows = magnitudes(last.reshape(*last.shape[: last.ndim - len(axes)], math.prod(last.shape[last.ndim - len(axes) :])))
    kept = tuple(1 if index in axes else size for index, size in enumerate(a.shape))
    terms = terms_of(rows, contract, a.operand)
    gamma = contract.gamma(terms.count, terms.alike * terms.large)
    rounding = gamma * terms.total
    if terms.tiny.any():
        rounding += tiny_terms(rows, terms).sum(axis=-1)
    if a.operand:
        likely = LAMBDA * np.sqrt((rows * rows).sum(axis=-1)) + terms.cast_mass * terms.total
        rounding += a.operand * np.minimum(terms.total, likely)
    carried = np.broadcast_to(a.error, a.shape).sum(axis=axes, keepdims=True)
    error = carried * (1 + gamma.max(initial=0.0) + a.operand) + rounding.reshape(kept)
    error = _within_range(terms.total.reshape(kept), error, contract)
    result = finish(a.value.sum(axis=axes, keepdims=True), error, contract, roundings=0)
    return result if keepdims else result.restructure(lambda array: array.squeeze(axis=axes))


@rule(np.cumsum)
def cumsum(a: Bounded, axis: int) -> Bounded:
    rows = np.moveaxis(np.abs(a.value), axis, -1)
    count, magnitude = np.cumsum(rows > 0, axis=-1), np.cumsum(rows, axis=-1)
    # Terms that are tiny or alike for the whole row are so, or more clearly different, for the sums on the way.
    terms = terms_of(rows, a.contract)
    gamma = a.contract.gamma(count, (terms.tiny + terms.alike * terms.large)[..., None])
    carried = np.cumsum(np.moveaxis(a.full_error, axis, -1), axis=-1)
    error = _within_range(magnitude, carried * (1 + gamma) + gamma * magnitude, a.contract)
    return finish(np.cumsum(a.value, axis=axis), np.moveaxis(error, -1, axis), a.contract, roundings=0)


@rule(np.einsum)
def einsum(subscripts: str, *operands: Any) -> Bounded:
    if len(operands) > 2:
        raise UnboundedOperation("numpy.einsum of more than two operands has no rule: the order of contraction decides the error")
    contract, inputs, output = contract_of(*operands), *subscripts.replace(" ", "").split("->")
    sizes: dict[str, int] = {}
    for letters, operand in zip(inputs.split(","), operands, strict=True):
        sizes.update(zip(letters, operand.shape, strict=True))
    terms = float(np.prod([size for letter, size in sizes.items() if letter not in output]))
    values, errors = zip(*map(split, operands), strict=True)
    magnitudes = [np.abs(value) for value in values]
    carried: Any = 0.0
    for position, own in enumerate(errors):
        # The operands before this one are taken at their largest, so that the product of two errors is counted once.
        others = [m + e if index < position else m for index, (m, e) in enumerate(zip(magnitudes, errors, strict=True))]
        others[position] = np.broadcast_to(own, values[position].shape)
        carried = carried + np.einsum(subscripts, *others)
    magnitude, gamma = np.einsum(subscripts, *magnitudes), contract.gamma(terms, alike=terms)
    value = np.einsum(subscripts, *values)
    error = gamma * magnitude + carried * (1 + gamma) + contract.bias(value)
    error = _within_range(magnitude, error + contract.flush * terms * (error > 0), contract)
    return finish(value, error, contract, roundings=0)


@rule(np.where)
def where(condition: np.ndarray, a: Any, b: Any) -> Bounded:
    if isinstance(a, Bounded) and not isinstance(b, Bounded) and np.ndim(b) == 0 and np.ndim(condition) <= a.ndim and np.all(condition):
        shape = np.broadcast_shapes(a.shape, np.shape(condition))
        return a if shape == a.shape else a.restructure(lambda array: np.broadcast_to(array, shape))
    (av, ae), (bv, be) = split(a), split(b)
    exact_otherwise = not be.any() and ae.max(initial=0.0) < np.inf
    error = ae * condition if exact_otherwise else np.where(condition, ae, be)
    return Bounded(np.where(condition, av, bv), error, contract_of(a, b))


@rule(np.max, np.amax, (np.maximum, "reduce"))
def reduce_max(a: Bounded, axis: int | None = None, keepdims: bool = False, **_: Any) -> Bounded:
    return Bounded(a.value.max(axis=axis, keepdims=keepdims), a.full_error.max(axis=axis, keepdims=keepdims), a.contract)


@rule(np.concatenate)
def concatenate(arrays: Sequence[Any], axis: int = 0) -> Bounded:
    parts = [(value, np.broadcast_to(error, value.shape)) for value, error in map(split, arrays)]
    values, errors = zip(*parts, strict=True)
    return Bounded(np.concatenate(values, axis), np.concatenate(errors, axis), contract_of(*arrays))


@rule(np.stack)
def stack(arrays: Sequence[Any], axis: int = 0) -> Bounded:
    parts = [(value, np.broadcast_to(error, value.shape)) for value, error in map(split, arrays)]
    values, errors = zip(*parts, strict=True)
    return Bounded(np.stack(values, axis), np.stack(errors, axis), contract_of(*arrays))


def _moves_elements(function: Any) -> None:
    @rule(function)
    def structural(a: Bounded, *args: Any, **kwargs: Any) -> Bounded:
        return a.restructure(lambda array: function(array, *args, **kwargs))


for _function in (
    np.swapaxes, np.transpose, np.moveaxis, np.reshape, np.expand_dims, np.squeeze, np.broadcast_to,
    np.repeat, np.take, np.take_along_axis, np.flip,
):  # fmt: skip
    _moves_elements(_function)
