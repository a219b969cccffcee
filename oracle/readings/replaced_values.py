"""The recurrence of the delta rules, S_t = decay_t S_{t-1} + beta_t k_t^T (v_t - k_t decay_t S_{t-1}), in every reading.

Every token reads what the one before wrote, so the loop over tokens stays; the budget readings run it on plain arrays with the
errors of a whole step in one expression, as an object for every operation would cost ten times what the operations do.

A chunked kernel makes up a state of its own at every token. It multiplies queries by keys first, an inner product of D terms,
and then adds up the values that a chunk writes; in a 16-bit contract it rounds the decayed keys, the decayed queries and their
products to the operand format. Where a recurrence replaces values its state forgets, but those sums do not: an early, large
value that a later one cancels leaves its rounding error until the chunk ends. The running bound forgets nothing anyway; the
samples need it said.

Shapes: B batch, H heads, L length, D key width, Dv value width; S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from oracle.readings.bounded import Bounded, split
from oracle.readings.contract import GATE_REACH, INDEPENDENT_SAMPLES, LAMBDA, PrecisionContract
from oracle.readings.perturbations import accumulated
from oracle.readings.perturbed import STACK, Noise, Perturbed, samples_of
from oracle.readings.recurrences import as_state

__all__ = ["replaced_values"]

# Decayed keys, decayed queries and their products, or the two matrices of a WY form and the solved triangle.
REGROUPED_OPERANDS = 3

# A chunk holds so many tokens at most; a term counts less and less until then, instead of all at once.
FADING = 1 - 1 / GATE_REACH

# The samples of a state are looked at for numbers beyond the range once in so many tokens, and whenever the exact one comes near.
WATCH = 16
NEAR = 1e-3


def replaced_values(first: Any, q: Any, k: Any, v: Any, beta: Any, decay: Any | None) -> tuple[Any, Any]:
    """Outputs q_t S_t, without a scale, and the final state.

    Args:
        first: S_0 (B, H, D, Dv).
        q: queries (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, Dv).
        beta: (B, H, L).
        decay: (B, H, L, 1); None for none.

    Returns:
        (B, H, L, Dv) and (B, H, D, Dv).
    """
    if isinstance(q, Bounded):
        return _bounded(first, q, k, v, beta, decay)
    if isinstance(q, Perturbed):
        return _perturbed(first, q, k, v, beta, decay)
    state, rows = as_state(first), []
    for t in range(q.shape[2]):
        if decay is not None:
            state = state * decay[:, :, t, :, None]
        known = np.matmul(k[:, :, t, None, :], state)[:, :, 0]
        written = (v[:, :, t] - known) * beta[:, :, t, None]
        state = as_state(state + k[:, :, t, :, None] * written[..., None, :])
        rows.append(np.matmul(q[:, :, t, None, :], state)[:, :, 0])
    return (np.stack(rows, axis=2) if rows else np.zeros((*q.shape[:3], v.shape[3]))), state


@dataclass(frozen=True)
class _Roundings:
    """What a chunked kernel rounds besides, under a contract and for a width of keys."""

    contract: PrecisionContract
    width: int

    @cached_property
    def term(self) -> float:
        """Relative error of a term k_t^T w_t, at most."""
        return float(self.contract.gamma(self.width + GATE_REACH)) + REGROUPED_OPERANDS * self.contract.operand

    @cached_property
    def likely(self) -> float:
        """Relative error of a term, one standard deviation."""
        return float(self.contract.gamma(self.width + GATE_REACH)) / LAMBDA + REGROUPED_OPERANDS**0.5 * self.contract.operand

    @cached_property
    def solved(self) -> float:
        """Relative error of a term T_ij b_j, of which there are as many as a chunk has tokens, one standard deviation."""
        return float(self.contract.gamma(GATE_REACH)) / LAMBDA + 2**0.5 * self.contract.operand

    @cached_property
    def product(self) -> float:
        """Relative error of an inner product over the width, at most."""
        return float(self.contract.gamma(self.width, alike=self.width))

    @cached_property
    def flush(self) -> float:
        """Of a number as small as a decayed key."""
        return self.contract.flush + self.contract.operand_spacing


def _live(first: np.ndarray, k: np.ndarray, v: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Which columns hold anything but zeros, (B, H, 1, Dv): the others are exact."""
    writes = (beta[..., None] * v != 0) & k.any(axis=-1, keepdims=True)
    return np.asarray((first != 0).any(axis=2, keepdims=True) | writes.any(axis=2, keepdims=True), np.float64)


def _rows(x: np.ndarray) -> np.ndarray:
    """From (..., B, H, L, n) to tokens first, each a row: (L, ..., B, H, 1, n)."""
    return np.ascontiguousarray(np.moveaxis(x, -2, 0))[..., None, :]


def _decays(decay: np.ndarray | None, length: int) -> Iterator[np.ndarray | None]:
    return iter([None] * length) if decay is None else iter(_rows(decay))


def _bounded(first: Any, q: Bounded, k: Bounded, v: Bounded, beta: Bounded, decay: Bounded | None) -> tuple[Bounded, Bounded]:
    """The running bound: of one step after the other, the rules of `rules.py` in one expression each."""
    contract, rounds, length = q.contract, _Roundings(q.contract, q.shape[3]), q.shape[2]
    state, error = (x.astype(q.value.dtype) for x in np.broadcast_arrays(*split(as_state(first))))
    live = _live(state, k.value, v.value, beta.value)
    unit, flush, small = contract.unit_roundoff, contract.flush * live, rounds.flush * live
    size = np.abs(state)
    error = error + rounds.term * (size + error) + small
    # A term's error is that of what is written times (1 + u)(1 + term), and its own.
    carried, own = (1 + unit) * (1 + rounds.term), unit * (1 + rounds.term) + rounds.term
    states, errors = (np.empty((length + 1, *state.shape), state.dtype) for _ in range(2))
    known_sizes = np.empty((length, *state.shape[:2], 1, state.shape[3]), state.dtype)
    states[0], errors[0] = state, error
    (kv, ke), (vv, ve), (bv, be) = ((x.value, x.full_error) for x in (k, v, beta))
    keys, values, parts = _rows(kv), _rows(vv), _rows(bv[..., None])
    key_sizes, keys_error, values_error, parts_error = (_rows(x) for x in (np.abs(kv), ke, ve, be[..., None]))
    inexact = bool(ke.any() or be.any())
    dv, de = (None, None) if decay is None else (decay.value, decay.full_error)
    with np.errstate(over="ignore", invalid="ignore"):
        for t, (d, d_error) in enumerate(zip(_decays(dv, length), _decays(de, length), strict=True)):
            if d is not None and d_error is not None:
                error = ((d + d_error) * (1 + unit)) * error + ((1 + unit) * d_error + unit * d) * size + flush
                state, size = state * d, size * d
            read = error + contract.operand * (size + error) + contract.operand_spacing * live if contract.operand else error
            key, key_size, part = keys[t], key_sizes[t], parts[t]
            known = np.matmul(key, state)
            known_size = known_sizes[t] = np.matmul(key_size, size)
            wrong = np.matmul(key_size, read) * (1 + rounds.product) + rounds.product * known_size + rounds.width * flush
            if inexact:
                wrong = wrong + np.matmul(keys_error[t], size + read)
            wrong += contract.bias(known)
            left = values[t] - known
            wrong = (values_error[t] + wrong) * (1 + unit) + unit * np.abs(left) + flush
            written = left * part
            wrong = part * (1 + unit) * wrong + unit * np.abs(written) + flush
            if inexact:
                wrong = wrong + (np.abs(left) + wrong) * parts_error[t]
            term_error = carried * wrong + own * np.abs(written)
            column = np.swapaxes(key_size, -1, -2)
            state = state + np.swapaxes(key, -1, -2) * written
            size = np.abs(state)
            error = (error + column * term_error + small) * (1 + unit) + unit * size + flush
            if inexact:
                error = error + np.swapaxes(keys_error[t], -1, -2) * (np.abs(written) + wrong)
            if contract.state:
                error = error + contract.state * (size + error) + contract.state_spacing * live
            states[t + 1], errors[t + 1] = state, error
        errors = _lost(states, errors, known_sizes, values, contract)
        read = errors + contract.operand * (np.abs(states) + errors) + contract.operand_spacing * live
    reads = Bounded(np.moveaxis(states, 0, 2), np.moveaxis(read if contract.operand else errors, 0, 2), contract)
    out = np.matmul(q[:, :, :, None, :], reads[:, :, 1:])[:, :, :, 0]
    return out, reads[:, :, -1]


def _lost(states: np.ndarray, errors: np.ndarray, known: np.ndarray, values: np.ndarray, contract: PrecisionContract) -> np.ndarray:
    """Errors that are infinite from the token on at which a number of the column may have overflowed."""
    half = contract.accumulate.largest / 2  # a difference of two numbers within it is in range
    beyond = ~(np.abs(states) + errors <= min(half, contract.state_largest)).all(axis=-2, keepdims=True)
    beyond[1:] |= ~(known + np.abs(values) <= half)
    return np.where(np.logical_or.accumulate(beyond, axis=0), np.inf, errors) if beyond.any() else errors


def _perturbed(
    first: Any, q: Perturbed, k: Perturbed, v: Perturbed, beta: Perturbed, decay: Perturbed | None
) -> tuple[Perturbed, Perturbed]:
    """The samples, whose errors the exact one sizes. All arguments but the decays are exact."""
    noise, contract, length = q.noise, q.noise.contract, q.shape[2]
    rounds = _Roundings(contract, q.shape[3])
    samples = np.array(np.broadcast_to(samples_of(as_state(first), 4), (STACK, *first.shape)), q.value.dtype)
    exact = samples[0].copy()
    live, energy = _live(exact, k.value, v.value, beta.value), np.square(exact)
    keys, queries, values, parts = _rows(k.value), _rows(q.value), _rows(v.value), _rows(beta.value[..., None])
    unit, flush = contract.unit_roundoff, rounds.width * contract.flush * live
    kept, tiny = np.hypot(unit, contract.state), (rounds.flush + contract.state_spacing) * live
    solved = _Solved(k.value, beta.value, rounds)
    rows, sizes = (np.empty((length, *stack, *v.shape[:2], 1, v.shape[3]), samples.dtype) for stack in ((STACK,), ()))
    with np.errstate(over="ignore", invalid="ignore"):
        _perturb(samples, np.abs(rounds.likely * exact) + tiny, rounds.likely * exact + np.copysign(tiny, exact), noise)
        read = _as_read(samples, energy, rounds, live, noise)
        for t, d in enumerate(_decays(None if decay is None else decay.samples, length)):
            decayed: Any = 0.0
            if d is not None:
                samples, energy = samples * d, energy * d[0] ** 2
                solved.decay(d[0])
                decayed, read = unit * samples[0], _as_read(samples, energy, rounds, live, noise)
            key, part = keys[t], parts[t]
            known = np.matmul(key, read)
            written = (values[t] - known) * part
            wrong = rounds.product * part * np.matmul(np.abs(key), np.abs(read[0])) + contract.bias(known[0]) + flush
            twice = 2 * unit * written[0]  # rounded as a difference and as a product
            inverse = solved.error(t, part * (np.abs(values[t]) + np.abs(known[0])))
            likely = np.hypot(wrong / LAMBDA + np.abs(twice), inverse)
            _perturb(written, likely, twice - np.copysign(wrong + inverse, known[0]), noise)
            column = np.swapaxes(key, -1, -2)
            samples = samples + column * written
            exact, term = samples[0], column * written[0]
            likely, worst = rounds.likely * term, kept * exact
            # A term, the decay and the sum that is kept are each rounded; of repeated errors all add up.
            _perturb(samples, np.sqrt(likely**2 + worst**2 + decayed**2) + tiny, likely + worst + decayed + np.copysign(tiny, exact), noise)
            _watch(samples, contract, t)
            energy = energy * FADING + np.square(term)
            read = _as_read(samples, energy, rounds, live, noise)
            rows[t] = np.matmul(queries[t], read)
            sizes[t] = np.matmul(np.abs(queries[t]), np.abs(read[0]))
    out, size = rows[:, :, :, :, 0].transpose(1, 2, 3, 0, 4), sizes[:, :, :, 0].transpose(1, 2, 0, 3)
    return accumulated(out, size, float(rounds.width), noise), Perturbed(read, noise)


class _Solved:
    """What a chunked kernel loses that multiplies by the inverse of the triangle instead of solving the system.

    It writes sum_j T_ij b_j, b_j what a token would write if nothing had been written before it in the chunk, and T_ij a product
    of the operators between them: -beta_i k_i (I - beta k^T k) ... k_j^T. That sum cancels where keys come again with the values
    that they have already, or where long keys let T grow.
    """

    def __init__(self, k: np.ndarray, beta: np.ndarray, rounds: _Roundings) -> None:
        squares = np.square(k).sum(axis=-1, keepdims=True)
        self._lengths = _rows(squares)
        self._parts = _rows(squares * np.square(beta[..., None]))
        self._growth = _rows(FADING * np.maximum(1.0, np.square(1 - beta[..., None] * squares)))
        self._likely, self._sum = rounds.solved, np.zeros(())

    def decay(self, decay: np.ndarray) -> None:
        """Of everything before the token."""
        self._sum = self._sum * np.square(decay)

    def error(self, t: int, alone: np.ndarray) -> np.ndarray:
        """One standard deviation of what token t writes, (B, H, 1, Dv); ``alone``: the magnitude of b_t."""
        squared = np.square(alone)
        error = self._likely * np.sqrt(self._parts[t] * self._sum + squared)
        self._sum = self._growth[t] * self._sum + self._lengths[t] * squared
        return np.asarray(error)


def _as_read(samples: np.ndarray, energy: np.ndarray, rounds: _Roundings, live: np.ndarray, noise: Noise) -> np.ndarray:
    """The state as a product reads it.

    Args:
        energy: sum of the squares of the terms of the chunk so far, decayed as they are.
    """
    read, exact, contract = samples.copy(), samples[0], noise.contract
    amplitude = rounds.likely * np.sqrt(energy)
    if contract.operand:
        amplitude = np.hypot(amplitude, contract.operand * exact) + contract.operand_spacing * live
    _perturb(read, amplitude, np.copysign(amplitude, exact), noise)
    return read


def _perturb(samples: np.ndarray, likely: np.ndarray, repeated: np.ndarray, noise: Noise) -> None:
    """Add errors to all samples but the exact one: of one amplitude to the independent, of another, signed, to the repeated."""
    end = 1 + INDEPENDENT_SAMPLES
    samples[1:end] += noise.independent(likely.shape) * likely
    samples[end:] += noise.repeated(repeated.shape) * repeated


def _watch(samples: np.ndarray, contract: PrecisionContract, t: int) -> None:
    """What lies beyond the range of the accumulation is unknown, and so is all that comes of it."""
    largest = contract.state_largest
    if t % WATCH == 0 or not np.abs(samples[0]).max(initial=0.0) <= NEAR * largest:
        beyond = ~(np.abs(samples) <= largest)
        if beyond.any():
            samples[1:][beyond[1:] | beyond[:1]] = np.nan
