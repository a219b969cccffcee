"""How each NumPy operation is perturbed: by the rounding errors that `rules.py` bounds, each with a random sign.

Sums and inner products of n terms err by gamma(n) times the sum of magnitudes. That bound holds LAMBDA standard
deviations, so the independent samples get gamma / LAMBDA, and the repeated ones the worst case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from oracle.readings.contract import INDEPENDENT_SAMPLES, LAMBDA, PrecisionContract
from oracle.readings.perturbed import Noise, Perturbed, UnperturbedOperation, perturbation, samples_of

__all__ = ["accumulated", "perturb", "round_samples"]


def noise_of(*operands: Any) -> Noise:
    """The noise of the first perturbed operand."""
    return next(operand.noise for operand in operands if isinstance(operand, Perturbed))


def round_samples(samples: np.ndarray, noise: Noise, roundoffs: float = 1.0) -> Perturbed:
    """The rounding of a result, relative to each sample; outside the range of the accumulation anything may come out."""
    contract = noise.contract
    unit = roundoffs * contract.unit_roundoff
    exact = np.abs(samples[0])
    # Where no sample comes near the ends of the range, nothing is flushed and nothing overflows.
    if ordinary := bool(exact.max(initial=0.0) < contract.accumulate.largest / 2):
        ordinary = bool(exact.min(initial=np.inf, where=exact > 0) * unit > contract.flush)
    with np.errstate(invalid="ignore", over="ignore"):
        if ordinary:
            return _with_errors(samples, samples, unit, noise)
        size = np.where(np.isfinite(samples) & (samples != 0), unit * np.abs(samples) + contract.flush, 0.0)
        return in_range(_with_errors(samples, size, 1.0, noise).samples, noise)


def _with_errors(samples: np.ndarray, size: np.ndarray, factor: float, noise: Noise) -> Perturbed:
    """All samples but the exact one with errors of ``factor * size``, either sign; size as the samples or without their axis."""
    made, repeated = np.empty_like(samples), 1 + INDEPENDENT_SAMPLES
    made[0] = samples[0]
    for part, signs in ((np.s_[1:repeated], noise.independent), (np.s_[repeated:], noise.repeated)):
        errors = signs(samples.shape[1:]) * (size[part] if size.ndim == samples.ndim else size)
        if factor != 1.0:
            errors *= factor
        np.add(samples[part], errors, out=made[part])
    return Perturbed(made, noise)


def in_range(samples: np.ndarray, noise: Noise) -> Perturbed:
    """Samples beyond the accumulation format are unknown, except for the exact one and for exact infinities."""
    largest = noise.contract.accumulate.largest
    with np.errstate(invalid="ignore"):
        if not (samples.max(initial=0.0) <= largest and samples.min(initial=0.0) >= -largest):
            beyond = np.isfinite(samples) & (np.abs(samples) > largest)
            beyond[1:] |= beyond[:1]
            beyond[0] = False
            samples = np.where(beyond, np.nan, samples)
    return Perturbed(samples, noise)


def perturb(samples: np.ndarray, amplitude: Any, noise: Noise) -> Perturbed:
    """Add an absolute error of that amplitude, which broadcasts to the shape of the array or has that of its samples."""
    # A repeated sign means away from zero or towards it, as it does for roundings, so that such errors of factors add up.
    amplitude = np.copysign(amplitude, samples[0])
    if amplitude.ndim != samples.ndim:
        amplitude = np.broadcast_to(amplitude, samples.shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):
        return in_range(_with_errors(samples, amplitude, 1.0, noise).samples, noise)


def accumulated(samples: np.ndarray, magnitude: np.ndarray, terms: np.ndarray | float, noise: Noise) -> Perturbed:
    """The errors of sums of ``terms`` terms, ``magnitude`` being the sum of the absolute values, with one sample or all."""
    contract: PrecisionContract = noise.contract
    likely, worst = contract.gamma(terms) / LAMBDA, contract.gamma(terms, alike=terms)
    scale = np.empty((len(samples), *np.broadcast_shapes(np.shape(likely), samples.shape[1:])))
    scale[: 1 + INDEPENDENT_SAMPLES], scale[1 + INDEPENDENT_SAMPLES :] = likely, worst
    with np.errstate(invalid="ignore", over="ignore"):
        amplitude = scale * magnitude + contract.bias(samples) + contract.flush * np.asarray(terms) * (magnitude > 0)
        amplitude = np.where(np.abs(magnitude) > contract.accumulate.largest, np.nan, amplitude)  # it may overflow on the way
    return perturb(samples, amplitude, noise)


def _elementwise(ufunc: np.ufunc, roundoffs: float) -> None:
    @perturbation((ufunc, "__call__"))
    def rule(*operands: Any) -> Perturbed:
        ndim = max(operand.ndim if isinstance(operand, Perturbed) else np.ndim(operand) for operand in operands)
        with np.errstate(all="ignore"):
            result = ufunc(*(samples_of(operand, ndim) for operand in operands))
        return round_samples(result, noise_of(*operands), roundoffs) if roundoffs else Perturbed(result, noise_of(*operands))


_ROUNDED: tuple[np.ufunc, ...] = (np.add, np.subtract, np.multiply, np.sqrt)
_EXACT: tuple[np.ufunc, ...] = (np.negative, np.absolute, np.maximum, np.minimum)
for _ufunc in (*_ROUNDED, *_EXACT):
    _elementwise(_ufunc, 1.0 if _ufunc in _ROUNDED else 0.0)


@perturbation((np.true_divide, "__call__"))
def divide(a: Any, b: Any) -> Perturbed:
    """Two roundings, and a divisor whose reciprocal leaves the range is unknown, as in the budget reading."""
    ndim, noise = max(np.ndim(x) if not isinstance(x, Perturbed) else x.ndim for x in (a, b)), noise_of(a, b)
    numerator, divisor = samples_of(a, ndim), samples_of(b, ndim)
    with np.errstate(all="ignore"):
        result = np.broadcast_to(numerator / divisor, np.broadcast_shapes(numerator.shape, divisor.shape))
        unknown = np.abs(divisor) * noise.contract.accumulate.largest <= 1
        if unknown.any():
            result = np.concatenate([result[:1], np.where(np.broadcast_to(unknown, result.shape), np.nan, result)[1:]])
    return round_samples(result, noise, 2.0)


@perturbation((np.exp, "__call__"))
def exp(a: Perturbed) -> Perturbed:
    contract = a.noise.contract
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = 3 * contract.unit_roundoff * np.where(np.isfinite(a.samples), np.abs(a.samples), 0.0) + contract.exp_error
        value = np.exp(a.samples)
        amplitude = np.where(np.isfinite(a.samples), value * np.expm1(rounded) + contract.flush, 0.0)
    return perturb(value, amplitude, a.noise)


@perturbation((np.log, "__call__"))
def log(a: Perturbed) -> Perturbed:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(a.samples)
        own = a.noise.contract.exp_error * (1 + np.where(np.isfinite(value), np.abs(value), 0.0))
    return round_samples(perturb(value, own, a.noise).samples, a.noise, 2.0)


@perturbation((np.tanh, "__call__"))
def tanh(a: Perturbed) -> Perturbed:
    return perturb(np.tanh(a.samples), a.noise.contract.tanh_error, a.noise)


def _trigonometric(function: np.ufunc) -> None:
    @perturbation((function, "__call__"))
    def wave(a: Perturbed) -> Perturbed:
        with np.errstate(invalid="ignore"):
            return perturb(function(a.samples), a.noise.contract.trigonometric_error, a.noise)


for _wave in (np.cos, np.sin):
    _trigonometric(_wave)


@perturbation((np.matmul, "__call__"))
def matmul(a: Any, b: Any) -> Perturbed:
    ndim, noise = max(x.ndim for x in (a, b)), noise_of(a, b)
    left, right = samples_of(a, ndim), samples_of(b, ndim)
    with np.errstate(invalid="ignore", over="ignore"):
        value = np.matmul(left, right)
        first = [np.abs(x.value if isinstance(x, Perturbed) else x) for x in (a, b)]
        magnitude = np.matmul(*first)
    if value.ndim == ndim:
        raise AssertionError("a product without samples")
    return accumulated(value, magnitude, float(left.shape[-1]), noise) if left.shape[-1] else Perturbed(value, noise)


@perturbation((np.add, "reduce"), np.sum)
def total(a: Perturbed, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, **_: Any) -> Perturbed:
    axes = tuple(range(a.ndim)) if axis is None else tuple(int(one) % a.ndim for one in np.atleast_1d(axis))
    shifted = tuple(one + 1 for one in axes)
    with np.errstate(invalid="ignore", over="ignore"):
        value = a.samples.sum(axis=shifted, keepdims=keepdims)
        magnitude = np.abs(a.value).sum(axis=axes, keepdims=keepdims)
    return accumulated(value, magnitude, float(math.prod(a.shape[one] for one in axes)), a.noise)


@perturbation(np.cumsum)
def cumsum(a: Perturbed, axis: int) -> Perturbed:
    axis %= a.ndim
    value, magnitude = np.cumsum(a.samples, axis=axis + 1), np.cumsum(np.abs(a.value), axis=axis)
    count = np.arange(1.0, a.shape[axis] + 1).reshape(-1, *(1,) * (a.ndim - 1 - axis))
    return accumulated(value, magnitude, count, a.noise)


@perturbation(np.einsum)
def einsum(subscripts: str, *operands: Any) -> Perturbed:
    if len(operands) > 2:
        raise UnperturbedOperation("numpy.einsum of more than two operands has no rule: the order of contraction decides the error")
    noise, (inputs, output) = noise_of(*operands), subscripts.replace(" ", "").split("->")
    parts = inputs.split(",")
    sizes = {letter: size for part, x in zip(parts, operands, strict=True) for letter, size in zip(part, x.shape, strict=True)}
    stacked = ",".join(f"Z{part}" if isinstance(x, Perturbed) else part for part, x in zip(parts, operands, strict=True))
    value = np.einsum(f"{stacked}->Z{output}", *(x.samples if isinstance(x, Perturbed) else x for x in operands))
    magnitude = np.einsum(subscripts, *(np.abs(x.value if isinstance(x, Perturbed) else x) for x in operands))
    return accumulated(value, magnitude, float(math.prod(size for letter, size in sizes.items() if letter not in output)), noise)


@perturbation(np.where)
def where(condition: np.ndarray, a: Any, b: Any) -> Perturbed:
    ndim = max(np.ndim(condition), *(x.ndim if isinstance(x, Perturbed) else np.ndim(x) for x in (a, b)))
    return Perturbed(np.where(condition, samples_of(a, ndim), samples_of(b, ndim)), noise_of(a, b))


@perturbation(np.max, np.amax, (np.maximum, "reduce"))
def reduce_max(a: Perturbed, axis: int | None = None, keepdims: bool = False, **_: Any) -> Perturbed:
    axes = tuple(range(1, a.ndim + 1)) if axis is None else axis % a.ndim + 1
    return Perturbed(a.samples.max(axis=axes, keepdims=keepdims), a.noise)


def _joined(function: Any) -> None:
    @perturbation(function)
    def rule(arrays: Sequence[Any], axis: int = 0) -> Perturbed:
        noise = noise_of(*arrays)
        stacks = [x.samples if isinstance(x, Perturbed) else Perturbed.exact(np.asarray(x), noise).samples for x in arrays]
        return Perturbed(function(stacks, axis if axis < 0 else axis + 1), noise)


_joined(np.concatenate)
_joined(np.stack)


def _moves_axes(function: Any) -> None:
    @perturbation(function)
    def rule(a: Perturbed, *axes: Any, **kwargs: Any) -> Perturbed:
        return Perturbed(function(a.samples, *map(_past_samples, axes), **{k: _past_samples(v) for k, v in kwargs.items()}), a.noise)


def _past_samples(axis: Any) -> Any:
    """An axis counted with that of samples in front."""
    if isinstance(axis, (tuple, list)):
        return tuple(map(_past_samples, axis))
    return axis if axis is None or axis < 0 else axis + 1


_AXES: tuple[Any, ...] = (np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze)
for _function in _AXES:
    _moves_axes(_function)


def _by_sample(function: Any) -> None:
    @perturbation(function)
    def rule(a: Perturbed, *args: Any, **kwargs: Any) -> Perturbed:
        return Perturbed(np.stack([function(sample, *args, **kwargs) for sample in a.samples]), a.noise)


_ELEMENTS: tuple[Any, ...] = (np.transpose, np.repeat, np.take, np.take_along_axis, np.flip)
for _function in _ELEMENTS:
    _by_sample(_function)


@perturbation(np.reshape)
def reshape(a: Perturbed, shape: Any) -> Perturbed:
    return a.reshape(shape)


@perturbation(np.broadcast_to)
def broadcast_to(a: Perturbed, shape: tuple[int, ...]) -> Perturbed:
    return Perturbed(np.broadcast_to(samples_of(a, len(shape)), (len(a.samples), *shape)), a.noise)
