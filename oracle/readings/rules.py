"""How each NumPy operation propagates rounding error: the standard model fl(a op b) = (a op b)(1 + delta).

Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 2.2 (the model), 3.1 (inner products), 3.3
(running error analysis). First-order terms are kept together with the product of the operands' errors, so a rule
stays sound when the errors are large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oracle.readings.bounded import Bounded, UnboundedOperation, rule, split
from oracle.readings.contract import PrecisionContract

__all__ = ["finish", "independent_terms"]

# Above this exponent an error has swallowed the value; the cap only keeps expm1 from overflowing.
LARGEST_EXPONENT = 700.0

# Enough elements of a row to see whether an eighth of them repeat.
SAMPLE = 64


def contract_of(*operands: Any) -> PrecisionContract:
    """The contract of the first bounded operand."""
    return next(operand.contract for operand in operands if isinstance(operand, Bounded))


def finish(value: np.ndarray, error: np.ndarray, contract: PrecisionContract, roundings: float = 1.0) -> Bounded:
    """Add the rounding of a result; outside the range of the accumulation format anything may come out."""
    magnitude = np.abs(value)
    with np.errstate(invalid="ignore", over="ignore"):
        error = error + (roundings * contract.unit_roundoff) * magnitude + contract.flush * (magnitude > 0)
    if magnitude.size and not magnitude.max() <= contract.accumulate.largest:
        infinite = np.isinf(value)  # an exact -inf (a masked score) stays exact
        error = np.where(infinite, 0.0, np.where(magnitude > contract.accumulate.largest, np.inf, error))
    return Bounded(value, error, contract)


def independent_terms(values: np.ndarray) -> np.ndarray:
    """For each row (last axis): are its terms different enough for their rounding errors to be independent?

    Equal terms round alike, so their errors add up instead of averaging out. A row in which an eighth of a sample
    repeats is treated as such.
    """
    length = values.shape[-1]
    if length <= SAMPLE // 4:  # so short that the worst case is no larger
        return np.zeros(values.shape[:-1], dtype=bool)
    step = max(1, length // SAMPLE)
    step += step > 1 and step % 2 == 0  # an odd step does not fall into the rhythm of a tile
    sample = np.sort(np.abs(values[..., ::step]), axis=-1)
    repeats = (np.diff(sample, axis=-1) == 0) & (sample[..., 1:] > 0)
    return repeats.sum(-1) * 8 <= (sample > 0).sum(-1)


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
    return finish(av * bv, ae * np.abs(bv) + (np.abs(av) + ae) * be, contract_of(a, b))


@rule((np.true_divide, "__call__"))
def divide(a: Any, b: Any) -> Bounded:
    (av, ae), (bv, be) = split(a), split(b)
    value = av / bv
    margin = np.abs(bv) - be
    safe = np.where(margin > 0, margin, 1.0)
    error = np.where(margin > 0, (ae + np.abs(value) * be) / safe, np.inf)
    return finish(value, error, contract_of(a, b), roundings=2.0)  # a reciprocal and a product, in many kernels


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


@rule((np.exp, "__call__"))
def exp(a: Bounded) -> Bounded:
    contract, argument_error = a.contract, split(a)[1]
    value = np.exp(a.value)
    with np.errstate(invalid="ignore"):
        # The argument is rounded when it is formed and again when log2(e) is folded into it for exp2.
        error = argument_error + 3 * contract.unit_roundoff * np.where(np.isfinite(a.value), np.abs(a.value), 0.0)
        return finish(value, value * np.expm1(np.minimum(error, LARGEST_EXPONENT)) + contract.exp_error * value, contract, roundings=0)


@rule((np.log, "__call__"))
def log(a: Bounded) -> Bounded:
    value, error = np.log(a.value), split(a)[1]
    relative = np.minimum(error / a.value, 1.0)
    # ln(x) by log2(x) * ln(2) keeps the absolute, not the relative accuracy near x = 1.
    return finish(value, -np.log1p(-relative) + a.contract.exp_error, a.contract, roundings=2.0)


@rule((np.tanh, "__call__"))
def tanh(a: Bounded) -> Bounded:
    value, error = np.tanh(a.value), split(a)[1]
    flattest = 1.0 / np.cosh(np.minimum(np.maximum(np.abs(a.value) - error, 0.0), LARGEST_EXPONENT / 2)) ** 2
    # Kernels without a tanh form it from exp: accurate to the unit roundoff of 1, not of the result.
    return Bounded(value, np.minimum(error * flattest + a.contract.exp_error, 2.0), a.contract)


@rule((np.sqrt, "__call__"))
def sqrt(a: Bounded) -> Bounded:
    value, error = np.sqrt(a.value), split(a)[1]
    # |sqrt(x+e) - sqrt(x)| = |e| / (sqrt(x+e) + sqrt(x)), and never more than sqrt(|e|)
    slope = np.divide(error, value, out=np.full(np.broadcast_shapes(error.shape, value.shape), np.inf), where=value > 0)
    return finish(value, np.minimum(slope, np.sqrt(error)), a.contract)


def _operand_error(error: np.ndarray, squares: Callable[[], np.ndarray], independent: np.ndarray, operand: float) -> np.ndarray:
    """One more rounding of relative size ``operand`` in each term: worst case, or averaged where the terms differ."""
    from oracle.readings.contract import LAMBDA

    return operand * np.where(independent, np.minimum(error, LAMBDA * np.sqrt(squares())), error)


@rule((np.matmul, "__call__"))
def matmul(a: Any, b: Any) -> Bounded:
    contract = contract_of(a, b)
    (av, ae), (bv, be) = _without_operand(a), _without_operand(b)
    magnitude_a, magnitude_b = np.abs(av), np.abs(bv)
    columns = independent_terms(np.swapaxes(bv, -1, -2))[..., None, :]
    rows = independent_terms(av)[..., :, None]
    terms = np.count_nonzero(av, axis=-1)[..., :, None]
    value = np.matmul(av, bv)
    magnitude = np.matmul(magnitude_a, magnitude_b)
    error = contract.gamma(terms, rows | columns) * magnitude
    if ae.any():
        error = error + np.matmul(np.broadcast_to(ae, av.shape), magnitude_b)
    if be.any():
        error = error + np.matmul(magnitude_a + ae, np.broadcast_to(be, bv.shape))
    if getattr(a, "operand", 0.0):
        error = error + _operand_error(magnitude, lambda: np.matmul(av**2, bv**2), rows, a.operand)
    if magnitude.size and not magnitude.max() <= contract.accumulate.largest:
        error = np.where(magnitude <= contract.accumulate.largest, error, np.inf)
    return finish(value, error, contract, roundings=0)


def _without_operand(x: Any) -> tuple[np.ndarray, np.ndarray]:
    return (x.value, x.error) if isinstance(x, Bounded) else (np.asarray(x), np.zeros(()))


@rule((np.add, "reduce"), np.sum)
def total(a: Bounded, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, **_: Any) -> Bounded:
    axes = tuple(range(a.ndim)) if axis is None else tuple(np.atleast_1d(axis) % a.ndim)
    last = np.moveaxis(a.value, axes, tuple(range(-len(axes), 0)))
    rows = last.reshape(*last.shape[: last.ndim - len(axes)], math.prod(last.shape[last.ndim - len(axes) :]))
    kept = tuple(1 if index in axes else size for index, size in enumerate(a.shape))
    magnitude = np.abs(a.value).sum(axis=axes, keepdims=True)
    independent = independent_terms(rows).reshape(kept)
    terms = np.count_nonzero(rows, axis=-1).reshape(kept)
    error = np.broadcast_to(a.error, a.shape).sum(axis=axes, keepdims=True) + a.contract.gamma(terms, independent) * magnitude
    if a.operand:
        error = error + _operand_error(magnitude, lambda: (a.value**2).sum(axis=axes, keepdims=True), independent, a.operand)
    result = finish(a.value.sum(axis=axes, keepdims=True), error, a.contract, roundings=0)
    return result if keepdims else result.restructure(lambda array: array.squeeze(axis=axes))


@rule(np.cumsum)
def cumsum(a: Bounded, axis: int) -> Bounded:
    terms = np.cumsum(a.value != 0, axis=axis)
    magnitude = np.cumsum(np.abs(a.value), axis=axis)
    independent = np.expand_dims(independent_terms(np.moveaxis(a.value, axis, -1)), axis)
    error = np.cumsum(a.full_error, axis=axis) + a.contract.gamma(terms, independent) * magnitude
    return finish(np.cumsum(a.value, axis=axis), error, a.contract, roundings=0)


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
    error = contract.gamma(terms, independent=False) * np.einsum(subscripts, *magnitudes)
    for position, own in enumerate(errors):
        # The operands before this one are taken at their largest, so that the product of two errors is counted once.
        others = [m + e if index < position else m for index, (m, e) in enumerate(zip(magnitudes, errors, strict=True))]
        others[position] = np.broadcast_to(own, values[position].shape)
        error = error + np.einsum(subscripts, *others)
    return finish(np.einsum(subscripts, *values), error, contract, roundings=0)


@rule(np.where)
def where(condition: np.ndarray, a: Any, b: Any) -> Bounded:
    (av, ae), (bv, be) = split(a), split(b)
    return Bounded(np.where(condition, av, bv), np.where(condition, ae, be), contract_of(a, b))


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
