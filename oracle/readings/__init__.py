"""The readings: one specification, evaluated as a value, as a budget, and as a rigorous enclosure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from oracle.catalogue import PLAIN_DTYPES, Method
from oracle.formats import Format, format_of
from oracle.readings import perturbations, rules  # noqa: F401  (their rules register themselves)
from oracle.readings.balls import balls, working_precision
from oracle.readings.bounded import Bounded, split
from oracle.readings.contract import PrecisionContract
from oracle.readings.decisions import Undecided
from oracle.readings.perturbed import Noise, Perturbed, spread
from oracle.readings.quantised import Stepped
from oracle.readings.shown import ShownOutput

__all__ = ["EXACT_KINDS", "Alternatives", "Expected", "Revealed", "budget", "enclosure", "expected", "perturbed", "running_bound", "value"]


# Integers, of either kind, and bools: outputs of these are right or wrong.
EXACT_KINDS = "iub"


@dataclass(frozen=True)
class Alternatives:
    """What an output should be under the other legitimate choices of a discrete decision; see `oracle.readings.decisions`.

    Iterating evaluates them one by one, each once however often it is asked for.
    """

    output: Undecided
    form: Format

    def __iter__(self) -> Iterator[Expected]:
        for number in range(len(self.output.worlds)):
            made = _rounded(self.output.other(number), self.form)
            wide = self.output.worlds.widened(number)
            yield made if wide is None else replace(made, wide=self.spread(wide))

    @property
    def near_ties(self) -> int:
        """Rows in which another choice than the exact one is legitimate."""
        return self.output.worlds.near_ties

    def worst(self, ratios: np.ndarray) -> np.ndarray:
        """The largest of some ratios, of every element of the output, in each row of the decision, (rows,)."""
        return ratios.reshape(self.output.split).max(axis=self.output.reduced, initial=0.0).reshape(-1)

    def spread(self, rows: np.ndarray) -> np.ndarray:
        """From what is true of rows to every element of the output; undoes `worst`."""
        own = [1 if axis in self.output.reduced else size for axis, size in enumerate(self.output.split)]
        return np.broadcast_to(rows.reshape(own), self.output.split).reshape(self.output.shape)


@dataclass(frozen=True)
class Revealed:
    """A discrete decision that an output of the call shows; see `oracle.readings.shown`."""

    output: ShownOutput
    form: Format | None

    @property
    def near_ties(self) -> int:
        """Rows in which another outcome than the exact one is legitimate."""
        return self.output.decision.near_ties

    @property
    def shown_by(self) -> int:
        """Position of the output that shows the decision."""
        return self.output.decision.position

    def given(self, decided: np.ndarray) -> Expected:
        """What this output should be, given what the output at `shown_by` says was decided."""
        return _rounded(self.output.decision.outputs(decided)[self.output.position], self.form)


@dataclass(frozen=True)
class Expected:
    """What an output should be and how far a correct implementation may be from it.

    Attributes:
        value: float64, or wider where float64 itself is judged.
        budget: same shape; ``inf`` where the contract's range was left and anything goes.
        alternatives: what else it may be, row by row, where a discrete decision has other legitimate outcomes; None for
            nothing else.
        shown: the discrete decision that follows from one of the outputs, on which this one depends; None for none.
        wide: bool, same shape: where the budget holds for all legitimate outcomes of a decision at once, because they are too
            many, or for both sides of a boundary of a quantiser; None for nowhere.
    """

    value: np.ndarray
    budget: np.ndarray
    alternatives: Alternatives | None = field(default=None, repr=False)
    wide: np.ndarray | None = field(default=None, repr=False)
    shown: Revealed | None = field(default=None, repr=False)

    @property
    def near_ties(self) -> int:
        """Rows in which a discrete decision has several legitimate outcomes."""
        decision = self.alternatives or self.shown
        return 0 if decision is None else decision.near_ties


def value(method: Method, arguments: Mapping[str, Any], dtype: Any = np.float64) -> tuple[np.ndarray, ...]:
    """Evaluate the specification on floating-point arrays of ``dtype``."""
    return _evaluate(method, arguments, lambda array: np.asarray(array).astype(dtype))


def budget(method: Method, arguments: Mapping[str, Any], contract: PrecisionContract) -> tuple[Bounded, ...]:
    """How far a correct implementation may be from the value, before the rounding of the output: see `expected`.

    The running bound; for a method whose operator contracts, which that bound cannot see, the smaller, element by element,
    of it and the perturbed reading's.
    """
    if not method.contracting:
        return running_bound(method, arguments, contract)
    with np.errstate(invalid="ignore"):  # a bound that has exploded may be infinity times 0
        bounds = running_bound(method, arguments, contract)
    if not any(_is_coarse(bound) for bound in bounds):
        return bounds
    spreads = perturbed(method, arguments, contract)
    return tuple(
        Bounded(bound.value, np.fmin(bound.full_error, error), contract) for bound, (_, error) in zip(bounds, spreads, strict=True)
    )


def running_bound(method: Method, arguments: Mapping[str, Any], contract: PrecisionContract) -> tuple[Bounded, ...]:
    """Evaluate the specification on `Bounded` arrays.

    The value underneath is float64, or extended precision where the contract is float64 itself.
    """
    wide = _wide(contract)
    with np.errstate(over="ignore"):
        outputs = _evaluate(method, arguments, lambda array: Bounded.exact(np.asarray(array).astype(wide), contract))
    bounded = tuple(output if isinstance(output, Bounded) else Bounded(np.asarray(output), np.zeros(()), contract) for output in outputs)
    for spec, output in zip(method.signature.outputs, bounded, strict=True):
        if isinstance(output, Undecided):
            output.set_rows(spec.dims, method.decisions, method.sizes(arguments))
    return bounded


def perturbed(method: Method, arguments: Mapping[str, Any], contract: PrecisionContract) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Evaluate the specification on `Perturbed` arrays.

    Returns:
        For every output its value, as `running_bound` has it, and the error that the spread of the samples allows.
    """
    wide, noise = _wide(contract), Noise(contract)
    with np.errstate(over="ignore"):
        outputs = _evaluate(method, arguments, lambda array: Perturbed.exact(np.asarray(array).astype(wide), noise))
    return tuple(
        (output.value, spread(output)) if isinstance(output, Perturbed) else (np.asarray(output), np.zeros(np.shape(output)))
        for output in outputs
    )


def _wide(contract: PrecisionContract) -> Any:
    return np.longdouble if contract.accumulate.name == "float64" else np.float64


def _is_coarse(bound: Bounded) -> bool:
    """Whether a smaller error could change a judgement: where the output's own rounding is larger, it could not."""
    with np.errstate(invalid="ignore"):
        return not bool(np.all(bound.full_error <= bound.contract.output.unit_roundoff / 4 * np.abs(bound.value)))


def expected(bounded: Bounded, output: Format | str) -> Expected:
    """Add the rounding to the output's format to a bound, its subnormals and its overflow included.

    Args:
        bounded: what the oracle expects.
        output: format, or the name of a dtype; one of integers or bools has no rounding.
    """
    form = output if isinstance(output, Format) else None if np.dtype(bounded.value.dtype).kind in EXACT_KINDS else format_of(output)
    made = _rounded(bounded, form)
    if isinstance(bounded, ShownOutput):
        return replace(made, shown=Revealed(bounded, form))
    if isinstance(bounded, Undecided):
        assert form is not None, "integers show their decision"
        return replace(made, alternatives=Alternatives(bounded, form))
    return made


def _rounded(bounded: Bounded, form: Format | None) -> Expected:
    if form is None:
        whole = bounded.value.astype(np.int64)  # in which bools can be subtracted as well
        return Expected(whole, np.zeros(whole.shape))
    exact, error = split(bounded)
    with np.errstate(invalid="ignore"):
        magnitude = np.where(np.isfinite(exact), np.abs(exact), 0.0)
        # A 16-bit output keeps its subnormals; a wider one may be computed by a machine that flushes them.
        spacing = form.smallest_subnormal if form.is_half else form.smallest_normal
        allowed = error + form.unit_roundoff * (magnitude + error) + spacing * ((magnitude > 0) | (error > 0))
        allowed = np.where(magnitude + allowed > form.largest, np.inf, allowed)
    # A step that may be taken either way says nothing of how well a kernel rounds.
    wide = bounded.full_error > 0 if isinstance(bounded, Stepped) else None
    return Expected(exact, np.broadcast_to(allowed, exact.shape), wide=wide)


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
