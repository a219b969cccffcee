"""The delta rules in NumPy: token by token, and in chunks in WY form.

A chunk knows the decay between two of its tokens as the exponential of a difference of cumulative log gates, which is at most
0: nothing is divided by a decay. Shapes: q, k (B, H, L, D), v (B, H, L, Dv) -> (B, H, L, Dv) and the state (B, H, D, Dv), which
is float32 (float64 for float64).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conformance import register
from implementations.numpy.logits import Array, working_dtype
from implementations.tiling import tiles

__all__ = ["delta_rule_chunked", "delta_rule_recurrent", "gated_delta_rule_chunked", "gated_delta_rule_recurrent"]

DTYPES = ("float32", "float64", "float16", "bfloat16")

# Longer chunks lose too much of a cumulative log gate.
CHUNKS = {"chunk_size": (64, 16, 1, 3, 32, 128)}

# exp of this is 0 in float64 too; sums of such gates stay finite, and so do their differences.
STRONGEST_GATE = -800.0


@dataclass
class Recurrence:
    """The arrays of a call in the working precision.

    Attributes:
        q: queries, scaled (B, H, L, D).
        k: keys (B, H, L, D).
        v: values (B, H, L, Dv).
        gates: logarithms of the decays (B, H, L, 1), or None for none.
        beta: (B, H, L, 1).
        state: (B, H, D, Dv).
    """

    q: Array
    k: Array
    v: Array
    gates: Array | None
    beta: Array
    state: Array

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.q.shape[2]


def _prepare(
    q: Array, k: Array, v: Array, gates: Array | None, beta: Array, scale: float | None, initial_state: Array | None
) -> Recurrence:
    dtype = working_dtype(q)
    batch, heads, _, width = q.shape
    q, k, v = (x.astype(dtype) for x in (q, k, v))
    q *= dtype.type(1 / np.sqrt(width) if scale is None else scale)
    shape = (batch, heads, width, v.shape[3])
    state = np.zeros(shape, dtype) if initial_state is None else initial_state.astype(dtype)
    if gates is not None:
        gates = np.maximum(gates.astype(dtype), dtype.type(STRONGEST_GATE))[..., None]
    return Recurrence(q, k, v, gates, beta.astype(dtype)[..., None], state)


def _token_by_token(call: Recurrence) -> tuple[Array, Array]:
    """The recurrence as it is defined."""
    state, out = call.state.copy(), np.empty(call.v.shape, call.v.dtype)
    decay = None if call.gates is None else np.exp(call.gates)
    for token in range(call.length):
        key = call.k[:, :, token]
        if decay is not None:
            state *= decay[:, :, token, :, None]
        write = call.beta[:, :, token] * (call.v[:, :, token] - (key[..., None, :] @ state)[..., 0, :])
        state += key[..., :, None] * write[..., None, :]
        out[:, :, token] = (call.q[:, :, token, None, :] @ state)[..., 0, :]
    return out, state


def _pairs(left: Array, right: Array, gates: Array, diagonal: int) -> Array:
    """Decayed inner products of two tokens i >= j of a chunk, exp(G_i - G_j) left_i . right_j: (B, H, C, C).

    Args:
        gates: cumulative log gates G (B, H, C, 1).
        diagonal: 0 with a token's product with itself, -1 without it.
    """
    below = np.tri(left.shape[2], k=diagonal, dtype=bool)
    between = np.where(below, gates - np.swapaxes(gates, -1, -2), -np.inf)
    return np.where(below, left @ np.swapaxes(right, -1, -2), 0) * np.exp(between)


def _unit_inverse(lower: Array) -> Array:
    """Inverse of the identity plus a strictly lower triangular matrix, (B, H, C, C), by blocks that double in size.

    A general solver may exchange rows, and then a later token leaves a rounding error in an earlier one. A series in powers of the
    matrix would cancel: those of a matrix of ones grow like binomial coefficients.
    """
    batch, heads, length, _ = lower.shape
    size = 1 << max(length - 1, 0).bit_length()
    padded = np.zeros((batch, heads, size, size), lower.dtype)
    padded[:, :, :length, :length] = lower
    inverse = np.broadcast_to(np.eye(size, dtype=lower.dtype), padded.shape).copy()
    half = 1
    while half < size:
        count = size // (2 * half)
        known, given = (x.reshape(batch, heads, count, 2 * half, count, 2 * half) for x in (inverse, padded))
        block = np.arange(count)  # the blocks on the diagonal, as the first axis
        first, second = known[:, :, block, :half, block, :half], known[:, :, block, half:, block, half:]
        known[:, :, block, half:, block, :half] = -second @ (given[:, :, block, half:, block, :half] @ first)
        half *= 2
    return inverse[:, :, :length, :length]


def _in_chunks(call: Recurrence, chunk_size: int) -> tuple[Array, Array]:
    """Chunk by chunk: what a chunk's tokens mean to each other by matrix products, the rest through the state.

    The values that a chunk writes solve a unit lower triangular system.
    """
    state, out = call.state, np.empty(call.v.shape, call.v.dtype)
    for chunk in tiles(slice(0, call.length), chunk_size):
        q, k, v, beta = (x[:, :, chunk] for x in (call.q, call.k, call.v, call.beta))
        gates = np.zeros((*q.shape[:3], 1), q.dtype) if call.gates is None else np.cumsum(call.gates[:, :, chunk], axis=2)
        since = np.exp(gates)  # the decay since the chunk began
        write = _unit_inverse(beta * _pairs(k, k, gates, -1)) @ (beta * (v - (k * since) @ state))
        out[:, :, chunk] = (q * since) @ state + _pairs(q, k, gates, 0) @ write
        end = gates[:, :, -1:]
        state = np.swapaxes(np.exp(end), -1, -2) * state + np.swapaxes(k * np.exp(end - gates), -1, -2) @ write
    return out, state


def _finish(result: tuple[Array, Array], like: Array) -> tuple[Array, Array]:
    out, state = result
    return out.astype(like.dtype), state


@register("delta_rule", backend="numpy", name="numpy.delta_recurrent", dtypes=DTYPES, description="token by token")
def delta_rule_recurrent(
    q: Array, k: Array, v: Array, beta: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """The delta rule as it is defined (Yang et al. 2024, eq. 5, arXiv:2406.06484)."""
    return _finish(_token_by_token(_prepare(q, k, v, None, beta, scale, initial_state)), q)


@register("delta_rule", backend="numpy", name="numpy.delta_chunked", dtypes=DTYPES, tunables=CHUNKS, description="chunks in WY form")
def delta_rule_chunked(
    q: Array, k: Array, v: Array, beta: Array, *, scale: float | None = None, initial_state: Array | None = None, chunk_size: int = 64
) -> tuple[Array, Array]:
    """The delta rule in chunks (Yang et al. 2024, section 3.2, arXiv:2406.06484)."""
    return _finish(_in_chunks(_prepare(q, k, v, None, beta, scale, initial_state), chunk_size), q)


@register("gated_delta_rule", backend="numpy", name="numpy.gated_delta_recurrent", dtypes=DTYPES, description="token by token")
def gated_delta_rule_recurrent(
    q: Array, k: Array, v: Array, g: Array, beta: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """The gated delta rule as it is defined (Yang et al. 2025, eq. 10, arXiv:2412.06464)."""
    return _finish(_token_by_token(_prepare(q, k, v, g, beta, scale, initial_state)), q)


@register(
    "gated_delta_rule", backend="numpy", name="numpy.gated_delta_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="chunks in WY form",
)  # fmt: skip
def gated_delta_rule_chunked(
    q: Array,
    k: Array,
    v: Array,
    g: Array,
    beta: Array,
    *,
    scale: float | None = None,
    initial_state: Array | None = None,
    chunk_size: int = 64,
) -> tuple[Array, Array]:
    """The gated delta rule in chunks (Yang et al. 2025, section 3.3, arXiv:2412.06464)."""
    return _finish(_in_chunks(_prepare(q, k, v, g, beta, scale, initial_state), chunk_size), q)
