"""Attention with decay in NumPy: token by token, and in chunks."""

from __future__ import annotations

import numpy as np

from conformance import block_sizes, register
from implementations.numpy.logits import Array, working_dtype

__all__ = ["gated_chunked", "gated_recurrent", "retention_chunked", "retention_recurrent"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
CHUNKS = {"chunk_size": block_sizes}
# A chunk holds the decay between any two of its tokens in every key dimension.
SHORT_CHUNKS = (16, 1, 2, 5, 17, 32, 64)


def _lifted(*arrays: Array) -> list[Array]:
    dtype = working_dtype(arrays[0])
    return [array.astype(dtype) for array in arrays]


def _first_state(q: Array, v: Array, initial_state: Array | None) -> Array:
    return np.zeros((*q.shape[:2], q.shape[3], v.shape[3]), q.dtype) if initial_state is None else initial_state.astype(q.dtype)


def _token_by_token(q: Array, k: Array, v: Array, decays: Array, scale: float | None, initial_state: Array | None) -> tuple[Array, Array]:
    stored, (q, k, v, decays) = q.dtype, _lifted(q, k, v, decays)
    q = q * q.dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    state = _first_state(q, v, initial_state)
    out = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for t in range(q.shape[2]):
        state = decays[:, :, t, :, None] * state
        state += np.einsum("bhd,bhe->bhde", k[:, :, t], v[:, :, t])
        out[:, :, t] = np.einsum("bhd,bhde->bhe", q[:, :, t], state)
    return out.astype(stored), state.astype(_state_dtype(stored))


def _state_dtype(stored: np.dtype) -> type:
    return np.float64 if stored == np.float64 else np.float32


def _by_chunks(
    q: Array, k: Array, v: Array, gates: Array, scale: float | None, initial_state: Array | None, chunk_size: int
) -> tuple[Array, Array]:
    """The decay between two tokens of a chunk is the exponential of a difference, which is never positive."""
    stored, (q, k, v, gates) = q.dtype, _lifted(q, k, v, gates)
    q = q * q.dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    state = _first_state(q, v, initial_state)
    out = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for start in range(0, q.shape[2], chunk_size):
        chunk = slice(start, start + chunk_size)
        total = np.cumsum(gates[:, :, chunk], axis=2)
        between = total[:, :, :, None] - total[:, :, None, :]  # (B, H, n, n, D)
        causal = np.tri(total.shape[2], dtype=bool)[:, :, None]
        decays = np.exp(np.where(causal, between, -np.inf))
        weights = np.einsum(
            "bhid,bhijd,bhjd->bhij", q[:, :, chunk], np.broadcast_to(decays, (*decays.shape[:4], q.shape[3])), k[:, :, chunk]
        )
        out[:, :, chunk] = weights @ v[:, :, chunk] + (q[:, :, chunk] * np.exp(total)) @ state
        left = np.exp(total[:, :, -1:] - total)
        state = np.exp(total[:, :, -1])[..., None] * state + (left * k[:, :, chunk]).swapaxes(-1, -2) @ v[:, :, chunk]
    return out.astype(stored), state.astype(_state_dtype(stored))


@register("gated_linear_attention", backend="numpy", name="numpy.gated_recurrent", dtypes=DTYPES, description="token by token")
def gated_recurrent(
    q: Array, k: Array, v: Array, g: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """As the definition says."""
    return _token_by_token(q, k, v, np.exp(_lifted(q, g)[1]), scale, initial_state)


@register(
    "gated_linear_attention", backend="numpy", name="numpy.gated_chunked", dtypes=DTYPES, tunables={"chunk_size": SHORT_CHUNKS},
    description="chunks, with the decay between any two tokens of each",
)  # fmt: skip
def gated_chunked(
    q: Array, k: Array, v: Array, g: Array, *, scale: float | None = None, initial_state: Array | None = None, chunk_size: int = 16
) -> tuple[Array, Array]:
    """Within a chunk all pairs at once, between chunks the state."""
    return _by_chunks(q, k, v, g, scale, initial_state, chunk_size)


@register("retention", backend="numpy", name="numpy.retention_recurrent", dtypes=DTYPES, description="token by token")
def retention_recurrent(
    q: Array, k: Array, v: Array, decay: Array, *, scale: float | None = None, initial_state: Array | None = None
) -> tuple[Array, Array]:
    """As the definition says."""
    return _token_by_token(q, k, v, np.broadcast_to(decay[:, None, None], (*q.shape[:3], 1)), scale, initial_state)


@register(
    "retention", backend="numpy", name="numpy.retention_chunked", dtypes=DTYPES, tunables=CHUNKS,
    description="chunks, with a table of powers of the decay",
)  # fmt: skip
def retention_chunked(
    q: Array, k: Array, v: Array, decay: Array, *, scale: float | None = None, initial_state: Array | None = None, chunk_size: int = 64
) -> tuple[Array, Array]:
    """A chunk's weights are decayed by powers that depend on the distance alone."""
    stored, (q, k, v, decay) = q.dtype, _lifted(q, k, v, decay)
    q = q * q.dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    state = _first_state(q, v, initial_state)
    out = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for start in range(0, q.shape[2], chunk_size):
        chunk = slice(start, start + chunk_size)
        place = np.arange(q[:, :, chunk].shape[2])
        distance = place[:, None] - place
        powers = np.where(distance >= 0, decay[:, None, None] ** np.maximum(distance, 0), 0).astype(q.dtype)
        entered = (decay[:, None] ** (place + 1))[..., None]
        out[:, :, chunk] = (q[:, :, chunk] @ k[:, :, chunk].swapaxes(-1, -2) * powers) @ v[:, :, chunk] + entered * (q[:, :, chunk] @ state)
        left = (decay[:, None] ** (len(place) - 1 - place))[..., None]
        state = (decay ** len(place))[:, None, None] * state + (left * k[:, :, chunk]).swapaxes(-1, -2) @ v[:, :, chunk]
    return out.astype(stored), state.astype(_state_dtype(stored))
