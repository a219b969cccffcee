"""The readings: one specification, evaluated as a value, as a budget, and as a rigorous enclosure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.catalogue import PLAIN_DTYPES, Method
from oracle.formats import Format, format_of
from oracle.readings import rules  # noqa: F401  (its rules register themselves)
from oracle.readings.balls import balls, working_precision
from oracle.readings.bounded import Bounded, split
from oracle.readings.contract import PrecisionContract

__all__ = ["Expected", "budget", "enclosure", "value"]


@dataclass(frozen=True)
class Expected:
    """What an output should be and how far a correct implementation may be from it.

    Attributes:
        value: float64, or wider where float64 itself is judged.
        budget: same shape; ``inf`` where the contract's range was left and anything goes.
    """

    value: np.ndarray
    budget: np.ndarray


def value(method: Method, arguments: Mapping[str, Any], dtype: Any = np.float64) -> tuple[np.ndarray, ...]:
    """Evaluate the specification on floating-point arrays of ``dtype``."""
    return _evaluate(method, arguments, lambda array: np.asarray(array).astype(dtype))


def budget(method: Method, arguments: Mapping[str, Any], contract: PrecisionContract) -> tuple[Bounded, ...]:
    """Evaluate the specification on `Bounded` arrays: before the rounding of the output, see `expected`.

    The value underneath is float64, or extended precision where the contract is float64 itself.
    """
    wide = np.longdouble if contract.accumulate.name == "float64" else np.float64
    with np.errstate(over="ignore"):
        outputs = _evaluate(method, arguments, lambda array: Bounded.exact(np.asarray(array).astype(wide), contract))
    return tuple(output if isinstance(output, Bounded) else Bounded(np.asarray(output), np.zeros(()), contract) for output in outputs)


def expected(bounded: Bounded, output: Format | str) -> Expected:
    """Add the rounding to the output's format to a bound, its subnormals and its overflow included."""
    form = output if isinstance(output, Format) else format_of(output)
    exact, error = split(bounded)
    with np.errstate(invalid="ignore"):
        magnitude = np.where(np.isfinite(exact), np.abs(exact), 0.0)
        # A 16-bit output keeps its subnormals; a wider one may be computed by a machine that flushes them.
        spacing = form.smallest_subnormal if form.is_half else form.smallest_normal
        allowed = error + form.unit_roundoff * (magnitude + error) + spacing * ((magnitude > 0) | (error > 0))
        allowed = np.where(magnitude + allowed > form.largest, np.inf, allowed)
    return Expected(exact, np.broadcast_to(allowed, exact.shape))


def enclosure(method: Method, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Evaluate the specification on Arb balls: object arrays that contain the exact result."""
    with working_precision():
        return _evaluate(method, arguments, lambda array: balls(np.asarray(array, dtype=np.float64)))


def _evaluate(method: Method, arguments: Mapping[str, Any], lift: Callable[[Any], Any]) -> tuple[Any, ...]:
    given = {name: argument for name, argument in arguments.items() if argument is not None}
    for spec in method.signature.inputs:
        if spec.name in given:
            plain = PLAIN_DTYPES.get(spec.kind)
            given[spec.name] = lift(given[spec.name]) if plain is None else np.asarray(given[spec.name], dtype=plain)
    outputs = method.spec(**given)
    return outputs if isinstance(outputs, tuple) else (outputs,)
