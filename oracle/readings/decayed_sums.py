"""States of a recurrence that forgets: S_t = decay_t S_{t-1} + k_t^T v_t for all tokens, with what every kernel of it may round.

The recurrence is linear in each number of the state, and so is the running bound of its error. In the budget reading both are
scans of two operations a token, and everything else is done for all tokens at once.

Shapes: B batch, H heads, L length, D key width, Dv value width; inside, tokens come first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.readings.bounded import Bounded, split
from oracle.readings.contract import PrecisionContract
from oracle.readings.recurrences import as_state

__all__ = ["decayed_states", "flushed_products"]

# A cumulative sum of gates, or the products of a chunk, span so many tokens at most: no kernel's chunk is longer.
LONGEST_CHUNK = 512

# Queries, keys, their products and the state are each fed to a matrix product once.
CHUNK_OPERANDS = 4

# exp(G_i - G_j) from two cumulative sums: every addition from j to i rounds relative to the sum, however small what it adds is;
# a scan that adds in a tree rounds the two sums apart.
CUMULATIVE_ROUNDINGS = 4

# exp of minus this is 0 in every format.
LARGEST_GATE = 2000.0


def decayed_states(first: Any, decays: Any, k: Any, v: Any) -> Any:
    """All states of the recurrence, the one before the first token included.

    Args:
        first: S_0 (B, H, D, Dv).
        decays: (B, H, L, D) or (B, H, L, 1).
        k: keys (B, H, L, D).
        v: values (B, H, L, Dv).

    Returns:
        (B, H, L + 1, D, Dv). The budget admits kernels that work token by token and kernels that work in chunks.
    """
    if isinstance(k, Bounded):
        return _bounded_states(first, decays, k, v)
    states = [as_state(first)]
    for t in range(k.shape[2]):
        states.append(as_state(states[-1] * decays[:, :, t, :, None] + k[:, :, t, :, None] * v[:, :, t, None, :]))
    return np.stack(states, axis=2)


def flushed_products(out: Any, first: Any, k: Any, v: Any) -> Any:
    """Outputs q_t S_t, (B, H, L, Dv), of a chunked kernel whose decayed queries may be flushed to zero before large terms."""
    if not isinstance(out, Bounded):
        return out
    undecayed = np.cumsum((np.abs(k.value) + 1).sum(axis=-1, keepdims=True) * np.abs(v.value), axis=2)
    undecayed += np.abs(split(first)[0]).sum(axis=2)[:, :, None]
    return Bounded(out.value, out.full_error + _flushed(out.contract) * undecayed, out.contract)


def _bounded_states(first: Any, decays: Any, k: Bounded, v: Bounded) -> Bounded:
    contract, unit = k.contract, k.contract.unit_roundoff
    added = k[..., :, None] * v[..., None, :]
    terms, terms_error = _tokens_first(added.value), _tokens_first(added.full_error)
    first = as_state(first)
    (start, start_error), (decay, decay_error) = split(first), split(decays)
    decay, decay_error = (_tokens_first(np.broadcast_to(x, decays.shape)[..., None]) for x in (decay, decay_error))
    states = _scan(start, decay, terms)
    sizes = np.abs(states)
    # What is zero all along is exact.
    flush = contract.flush * sizes.any(axis=0)
    # The product with the decay, the addition and the rounding of what is kept, each relative to what was computed.
    own = (1 + unit) * (sizes[:-1] * ((1 + unit) * decay_error + unit * decay) + terms_error + flush) + unit * sizes[1:] + flush
    kept = 1 + contract.state
    if contract.state:
        own = kept * own + contract.state * sizes[1:] + contract.state_spacing * (sizes[1:] > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        error = _scan(start_error, kept * (1 + unit) ** 2 * (decay + decay_error), own)
        error += _of_chunks(np.abs(start), decay, np.abs(k.value), np.abs(v.value), contract)
        lost = ~(sizes + error <= contract.state_largest)
    if lost.any():  # a number that may overflow stays lost, whatever it is multiplied by
        error = np.where(np.logical_or.accumulate(lost, axis=0), np.inf, error)
    return Bounded(np.moveaxis(states, 0, 2), np.moveaxis(error, 0, 2), contract)


def _of_chunks(first: np.ndarray, decay: np.ndarray, k: np.ndarray, v: np.ndarray, contract: PrecisionContract) -> np.ndarray:
    """What a chunked kernel rounds besides, as errors of the states, (L + 1, B, H, D, Dv), from magnitudes.

    Its weights q_i exp(G_i - G_j) k_j come from cumulative gates G, whose rounding is relative to their own size, and its
    products take operands in the storage format. They are inner products of D terms, and it adds up those of a chunk for
    every output, while here terms may cancel in the state before a query reads them. What is as small as a decayed key may
    be flushed to zero, and then stands before a large value.
    """
    width, length = k.shape[3], k.shape[2]
    with np.errstate(divide="ignore"):
        total = np.cumsum(np.minimum(-np.log(decay), LARGEST_GATE), axis=0)
    reach = total.copy()
    reach[LONGEST_CHUNK:] -= total[:-LONGEST_CHUNK]
    sizes = _scan(first, decay, _tokens_first(k[..., :, None] * v[..., None, :]))
    cumulative = CUMULATIVE_ROUNDINGS * contract.unit_roundoff * reach * sizes[:-1] * decay
    error = _scan(np.zeros_like(first), decay, cumulative)
    regrouped = CHUNK_OPERANDS * contract.operand + contract.gamma(width + np.minimum(np.arange(length) + 1, LONGEST_CHUNK))
    error[1:] += regrouped.reshape(-1, 1, 1, 1, 1) * sizes[1:]
    undecayed = np.concatenate([first[None], _tokens_first((k + 1)[..., :, None] * v[..., None, :])])
    error += _flushed(contract) * np.cumsum(undecayed, axis=0)
    return np.asarray(error)


def _flushed(contract: PrecisionContract) -> float:
    return contract.flush + contract.operand_spacing


def _tokens_first(x: np.ndarray) -> np.ndarray:
    """From (B, H, L, ...) to (L, B, H, ...)."""
    return np.moveaxis(x, 2, 0)


def _scan(first: np.ndarray, factors: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """x_0 = first and x_t = factors_t x_{t-1} + terms_t: (L + 1, ...)."""
    made = np.empty((len(terms) + 1, *terms.shape[1:]), terms.dtype)
    made[0], made[1:] = first, terms
    product = np.empty_like(made[0])
    for factor, before, after in zip(factors, made, made[1:], strict=False):
        np.multiply(before, factor, out=product)
        np.add(after, product, out=after)
    return made
