"""Primitives of recurrences, whose kernels work token by token or in chunks: what every such form may round.

In the value and enclosure readings each returns what it is given, or its exponential.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.readings.bounded import Bounded
from oracle.readings.contract import GATE_REACH, PrecisionContract
from oracle.readings.features import largest_stored, values_of
from oracle.readings.ops import FARTHEST, rounded_again
from oracle.readings.perturbations import perturb
from oracle.readings.perturbed import Perturbed
from oracle.readings.rules import exponential_error, finish

__all__ = ["as_state", "decays", "in_one_chunk"]


def as_state(state: Any) -> Any:
    """A recurrence's state about to be kept for the next token: the contract says in which format."""
    if isinstance(state, Perturbed):
        contract = state.noise.contract
        kept = rounded_again(state, contract.state, contract.state_spacing)
        return kept if not contract.state else Perturbed(_held(kept.samples, contract), state.noise)
    if not isinstance(state, Bounded) or not state.contract.state:
        return state
    contract, magnitude = state.contract, np.abs(state.value)
    error = state.full_error + contract.state * (magnitude + state.full_error) + contract.state_spacing * (magnitude > 0)
    return Bounded(state.value, np.where(magnitude + error <= contract.state_largest, error, np.inf), contract)


def _held(samples: np.ndarray, contract: PrecisionContract) -> np.ndarray:
    """Samples of a state, unknown where it or the exact one is beyond its format."""
    beyond = np.abs(samples) > contract.state_largest
    beyond[1:] |= beyond[:1]
    beyond[0] = False
    return np.where(beyond, np.nan, samples)


def decays(gates: Any) -> Any:
    """Decays exp(gates) of a recurrence.

    Args:
        gates: log gates (..., L, n), at most 0, tokens along the axis before the last.

    Returns:
        Decays of the same shape. A chunked kernel knows the decay between two tokens only as the exponential of a difference
        of cumulative log gates, so its error is relative to their sum, not to the difference.
    """
    if isinstance(gates, Bounded):
        with np.errstate(under="ignore"):
            value = np.exp(gates.value)
        error = exponential_error(gates.value, value, gates.full_error + _gate_error(gates.value, gates.contract))
        return finish(value, error, gates.contract, roundings=0)
    with np.errstate(under="ignore"):
        if not isinstance(gates, Perturbed):
            return np.exp(gates)
        value, contract = np.exp(gates.samples), gates.noise.contract
    return perturb(value, value * np.expm1(_gate_error(gates.value, contract)) + contract.flush * (value > 0), gates.noise)


def _gate_error(gates: np.ndarray, contract: PrecisionContract) -> np.ndarray:
    """Relative error of the decay of every token, (..., L, n)."""
    sizes = np.minimum(np.abs(gates), FARTHEST)
    before = np.concatenate([np.zeros_like(sizes[..., :1, :]), np.cumsum(sizes, axis=-2)], axis=-2)
    length = sizes.shape[-2]
    reach = before[..., 1:, :] - before[..., np.maximum(np.arange(length) + 1 - GATE_REACH, 0), :]
    # Each of the two sums was rounded, so is their difference and the product with log2(e).
    return 4 * contract.unit_roundoff * reach + contract.exp_error


def in_one_chunk(out: Any, state: Any, k: Any, beta: Any) -> tuple[Any, Any]:
    """Outputs and final state of a delta rule, of which nothing is known where a chunk that holds the token may overflow.

    A chunked kernel multiplies a later token's infinity by the 0 with which causality hides it from earlier ones. And it inverts
    a triangle whose entries grow by beta |k|^2 from token to token, whatever the values are, zeros included.

    Args:
        out: (B, H, L, Dv).
        state: (B, H, D, Dv).
        k: keys (B, H, L, D).
        beta: (B, H, L).
    """
    if isinstance(out, Bounded):
        contract, unknown = out.contract, np.isinf(out.full_error)
    elif isinstance(out, Perturbed):
        contract, unknown = out.noise.contract, ~np.isfinite(out.samples[1:]).all(axis=0)
    else:
        return out, state
    with np.errstate(over="ignore"):
        growth = np.log(np.maximum(values_of(beta) * np.square(values_of(k)).sum(axis=-1), 1.0))
    total = np.cumsum(growth, axis=-1)
    before = np.concatenate([np.zeros_like(total[..., :1]), total], axis=-1)
    length = total.shape[-1]
    first = np.maximum(np.arange(1, length + 1) - GATE_REACH, 0)
    overflowing = before[..., 1:] - before[..., first] > np.log(largest_stored(contract))
    lost = _followed(unknown | overflowing[..., None])
    # What a state has lost stays lost.
    lost |= np.maximum.accumulate(overflowing, axis=-1)[..., None]
    return _without(out, lost), _without(state, overflowing.any(axis=-1)[..., None, None])


def _without(x: Any, lost: np.ndarray) -> Any:
    if not lost.any():
        return x
    if isinstance(x, Bounded):
        return Bounded(x.value, np.where(lost, np.inf, x.full_error), x.contract)
    return Perturbed(np.concatenate([x.samples[:1], np.where(lost, np.nan, x.samples[1:])]), x.noise)


def _followed(lost: np.ndarray) -> np.ndarray:
    """Where a token or one of the next `GATE_REACH` - 1 is lost."""
    length = lost.shape[-2]
    before = np.concatenate([np.zeros_like(lost[..., :1, :], np.intp), np.cumsum(lost, axis=-2)], axis=-2)
    last = np.minimum(np.arange(length) + GATE_REACH, length)
    return np.asarray(before[..., last, :] > before[..., :length, :])
