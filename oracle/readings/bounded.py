"""The budget reading: an array that carries, element by element, how far a correct implementation may be from its value.

`Bounded` takes part in NumPy's dispatch protocols, so a specification written in plain NumPy runs on it unchanged. Each
operation has a rule, in `rules.py`; an operation without one raises instead of silently dropping the error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracle.readings.contract import PrecisionContract

__all__ = ["Bounded", "UnboundedOperation", "rule", "split"]

Rule = Callable[..., "Bounded"]
_RULES: dict[object, Rule] = {}


class UnboundedOperation(TypeError):
    """A specification used a NumPy operation that has no rule in the budget reading; give it one in `rules.py`."""


def rule(*operations: object) -> Callable[[Rule], Rule]:
    """Declare the decorated function as the rule of NumPy functions or of ``(ufunc, method)`` pairs."""

    def declare(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(operations, function))
        return function

    return declare


class Bounded(np.lib.mixins.NDArrayOperatorsMixin):
    """Values with bounds on the rounding error that a computation under a contract may have left in them.

    Attributes:
        value: float64 (or wider) ndarray.
        error: ndarray that broadcasts to ``value``; non-negative, ``inf`` where the contract's range was left.
        contract: the `PrecisionContract`.
        operand: relative size of one more rounding, independent for every element, which the value takes when it is
            fed to a matrix product; 0 for none. Kept apart because independent roundings average out in a sum.
    """

    __slots__ = ("contract", "error", "operand", "value")

    def __init__(self, value: np.ndarray, error: np.ndarray, contract: PrecisionContract, operand: float = 0.0) -> None:
        self.value, self.error, self.contract, self.operand = value, error, contract, operand

    @classmethod
    def exact(cls, value: np.ndarray, contract: PrecisionContract) -> Bounded:
        """An input: exact, but for subnormals, which a machine may flush to zero on reading."""
        magnitude = np.abs(value)
        if magnitude.min(initial=np.inf) >= contract.flush:
            return cls(value, np.zeros(()), contract)
        subnormal = (magnitude < contract.flush) & (magnitude > 0)
        return cls(value, np.where(subnormal, magnitude, 0.0) if subnormal.any() else np.zeros(()), contract)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.ndim

    @property
    def full_error(self) -> np.ndarray:
        """The error, broadcast to the shape of the value and with the pending operand rounding included."""
        error = self.error + self.operand * np.abs(self.value) if self.operand else self.error
        return np.broadcast_to(error, self.value.shape)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Bounded:
        found = _RULES.get((ufunc, method))
        if found is None:
            raise UnboundedOperation(f"numpy.{ufunc.__name__} ({method}) has no rule in the budget reading")
        return found(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Bounded:
        found = _RULES.get(function)
        if found is None:
            raise UnboundedOperation(f"numpy.{function.__name__} has no rule in the budget reading")
        return found(*args, **kwargs)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise UnboundedOperation("a Bounded array cannot become a plain array: its error would be lost")

    def __getitem__(self, index: Any) -> Bounded:
        return self.restructure(lambda array: array[index])

    def reshape(self, *shape: Any) -> Bounded:
        """As `numpy.reshape`."""
        return self.restructure(lambda array: array.reshape(*shape))

    def lifted(self, values: np.ndarray) -> Bounded:
        """Other numbers, as inputs of the same evaluation: exact where the format of the accumulation holds them."""
        form, made = self.contract.accumulate, Bounded.exact(values.astype(self.value.dtype), self.contract)
        with np.errstate(over="ignore"):
            rounded = np.abs(values) * form.unit_roundoff * (values.astype(form.dtype).astype(np.float64) != values)
        return Bounded(made.value, np.where(np.abs(values) > form.largest, np.inf, made.error + rounded), self.contract)

    def restructure(self, view: Callable[[np.ndarray], np.ndarray]) -> Bounded:
        """Apply an operation that only moves or copies elements."""
        error = self.error if self.error.shape == self.value.shape else np.broadcast_to(self.error, self.value.shape)
        return Bounded(view(self.value), view(error), self.contract, self.operand)

    def __repr__(self) -> str:
        return f"Bounded(shape={self.shape}, contract={self.contract.name!r})"


def split(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Value and error of an operand; a plain array or number is exact."""
    if isinstance(x, Bounded):
        return x.value, (x.full_error if x.operand else x.error)
    return np.asarray(x), np.zeros(())
