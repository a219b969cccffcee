"""The perturbed reading: the specification in float64 on a stack of samples, each result with a random rounding error.

Monte Carlo arithmetic (Parker 1997, UCLA CSD-970002; Higham and Mary 2020, SIAM J. Sci. Comput. 42(5), A3427, for the
probabilistic model): the spread of the samples is what rounding does to the result, cancellations and contractions
included, which the running bound of `Bounded` cannot see because it adds absolute values. It is not a bound: it serves
recurrences whose running bound explodes (the delta rule's grows like (1 + beta)**L) and is validated against both the
bound and a machine that rounds.

Two families of samples: errors of either sign, independent in every operation, which average out; and errors whose sign
is drawn once for an element and repeated by every operation, as equal tokens repeat theirs, which add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from oracle.readings.contract import INDEPENDENT_SAMPLES, LAMBDA, REPEATED_SAMPLES, PrecisionContract

__all__ = ["Noise", "Perturbed", "UnperturbedOperation", "perturbation", "samples_of", "spread"]

Rule = Callable[..., "Perturbed"]
RULES: dict[object, Rule] = {}
STACK = 1 + INDEPENDENT_SAMPLES + REPEATED_SAMPLES
SEED = 20170321
TABLE = 2**20


class UnperturbedOperation(TypeError):
    """A specification used a NumPy operation that has no rule in the perturbed reading; give it one in `perturbations.py`."""


class Noise:
    """The signs of one evaluation's errors; the same for the same specification and shapes.

    Attributes:
        contract: whose roundings they are.
    """

    def __init__(self, contract: PrecisionContract) -> None:
        self.contract = contract
        self._random = np.random.default_rng(SEED)
        self._repeated: dict[tuple[int, ...], np.ndarray] = {}

    def independent(self, shape: tuple[int, ...]) -> np.ndarray:
        """(INDEPENDENT_SAMPLES, *shape) of -1 and 1: a stretch of a table that begins anywhere, as drawing each would be slow."""
        size = INDEPENDENT_SAMPLES * math.prod(shape)
        if size > TABLE // 2:
            return self._draw((INDEPENDENT_SAMPLES, *shape))
        start = int(self._random.integers(0, TABLE - size))
        return _table()[start : start + size].reshape(INDEPENDENT_SAMPLES, *shape)

    def repeated(self, shape: tuple[int, ...]) -> np.ndarray:
        """(REPEATED_SAMPLES, *shape) of -1 and 1, the same whenever a result has that shape."""
        if shape not in self._repeated:
            signs = self._draw((REPEATED_SAMPLES, *shape))
            signs[0] = 1  # all results too large: what equal terms of an inner product do
            self._repeated[shape] = signs
        return self._repeated[shape]

    def _draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._random.integers(0, 2, shape, dtype=np.int8) * 2.0 - 1.0


@cache
def _table() -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 2, TABLE, dtype=np.int8) * 2.0 - 1.0


class Perturbed(np.lib.mixins.NDArrayOperatorsMixin):
    """Samples of an array, the first of them exact.

    Attributes:
        samples: (STACK, *shape) float64 or wider; not finite where a sample left the contract's range.
        noise: the `Noise` of the evaluation.
    """

    __slots__ = ("noise", "samples")

    def __init__(self, samples: np.ndarray, noise: Noise) -> None:
        self.samples, self.noise = samples, noise

    @classmethod
    def exact(cls, value: np.ndarray, noise: Noise) -> Perturbed:
        """An input: the same in all samples."""
        return cls(np.broadcast_to(value, (STACK, *value.shape)), noise)

    def lifted(self, values: np.ndarray) -> Perturbed:
        """Other exact numbers, as inputs of the same evaluation."""
        return Perturbed.exact(values.astype(self.samples.dtype), self.noise)

    @property
    def value(self) -> np.ndarray:
        """The exact sample."""
        return self.samples[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, without the axis of samples."""
        return self.samples.shape[1:]

    @property
    def ndim(self) -> int:
        """Number of axes, without that of samples."""
        return self.samples.ndim - 1

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Perturbed:
        found = RULES.get((ufunc, method))
        if found is None:
            raise UnperturbedOperation(f"numpy.{ufunc.__name__} ({method}) has no rule in the perturbed reading")
        return found(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Perturbed:
        found = RULES.get(function)
        if found is None:
            raise UnperturbedOperation(f"numpy.{function.__name__} has no rule in the perturbed reading")
        return found(*args, **kwargs)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise UnperturbedOperation("a Perturbed array cannot become a plain array: its samples would be lost")

    def __getitem__(self, index: Any) -> Perturbed:
        entries = index if isinstance(index, tuple) else (index,)
        if all(entry is None or entry is Ellipsis or isinstance(entry, (int, slice)) for entry in entries):
            return Perturbed(self.samples[(slice(None), *entries)], self.noise)
        return Perturbed(np.stack([sample[index] for sample in self.samples]), self.noise)

    def reshape(self, *shape: Any) -> Perturbed:
        """As `numpy.reshape`."""
        flat = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return Perturbed(self.samples.reshape(STACK, *flat), self.noise)

    def __repr__(self) -> str:
        return f"Perturbed(shape={self.shape}, contract={self.noise.contract.name!r})"


def perturbation(*operations: object) -> Callable[[Rule], Rule]:
    """Declare the decorated function as the rule of NumPy functions or of ``(ufunc, method)`` pairs."""

    def declare(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, function))
        return function

    return declare


def samples_of(x: Any, ndim: int) -> np.ndarray:
    """The samples of an operand with its axes aligned to those of a result of ``ndim``; a plain array is its own sample."""
    if not isinstance(x, Perturbed):
        return np.asarray(x)
    return x.samples.reshape(STACK, *(1,) * (ndim - x.ndim), *x.shape)


def spread(output: Perturbed) -> np.ndarray:
    """How far a correct implementation may be from the exact sample, before the rounding of the output.

    LAMBDA times the root mean square of the independent deviations, or the largest of the repeated ones, which are worst
    cases already. The estimate from few samples is pooled with those of the other elements along the last axis, which
    share their roundings' magnitudes; but only to twice itself, as the columns may differ in scale.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        deviations = output.samples[1:] - output.samples[0]
        own = np.sqrt(np.mean(deviations[:INDEPENDENT_SAMPLES] ** 2, axis=0))
        pooled = np.sqrt(np.mean(own**2, axis=-1, keepdims=True)) if own.ndim and own.shape[-1] else own
        likely = LAMBDA * np.clip(pooled, own, 2 * own)
        budget = np.maximum(likely, np.abs(deviations[INDEPENDENT_SAMPLES:]).max(axis=0))
    same = (output.samples == output.samples[0]).all(axis=0)  # an infinity that is exact stays so
    return np.where(same, 0.0, np.where(np.isfinite(budget), budget, np.inf))
