"""Small recurrent kernels whose states have fewer bits than their sums, or go wrong after many chunks."""

import ml_dtypes
import numpy as np


def _lifted(*arrays):
    dtype = np.float64 if arrays[0].dtype == np.float64 else np.float32
    return [array.astype(dtype) for array in arrays]


def _gated(q, k, v, g, scale, initial_state, kept=lambda state, t: state, forgets=lambda state, t: state):
    """Gated linear attention token by token; ``kept``: what becomes of a state, ``forgets``: of one that a token meets."""
    stored, scale = q.dtype, q.shape[3] ** -0.5 if scale is None else scale
    q, k, v, g = _lifted(q, k, v, g)
    state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]), q.dtype) if initial_state is None else initial_state.astype(q.dtype)
    state, out = kept(state, 0), np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for t in range(q.shape[2]):
        state = forgets(state, t) * np.exp(g[:, :, t])[..., None] + k[:, :, t, :, None] * v[:, :, t, None]
        state = kept(state, t)
        out[:, :, t] = (q[:, :, t, None] @ state)[:, :, 0] * q.dtype.type(scale)
    return out.astype(stored), state


def _delta(q, k, v, beta, scale, initial_state, kept=lambda state, t: state, place=lambda t: t):
    """The delta rule token by token; ``place``: from which token a token takes its beta."""
    stored, scale = q.dtype, q.shape[3] ** -0.5 if scale is None else scale
    q, k, v, beta = _lifted(q, k, v, beta)
    state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]), q.dtype) if initial_state is None else initial_state.astype(q.dtype)
    state, out = kept(state, 0), np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for t in range(q.shape[2]):
        written = beta[:, :, place(t), None] * (v[:, :, t] - (k[:, :, t, None] @ state)[:, :, 0])
        state = kept(state + k[:, :, t, :, None] * written[:, :, None], t)
        out[:, :, t] = (q[:, :, t, None] @ state)[:, :, 0] * q.dtype.type(scale)
    return out.astype(stored), state


def _in(dtype):
    return lambda state, t: state.astype(dtype).astype(state.dtype)


def gated_state_in_bfloat16(q, k, v, g, *, scale=None, initial_state=None):
    return _gated(q, k, v, g, scale, initial_state, _in(ml_dtypes.bfloat16))


def gated_state_in_float16(q, k, v, g, *, scale=None, initial_state=None):
    return _gated(q, k, v, g, scale, initial_state, _in(np.float16))


def gated_state_in_float32(q, k, v, g, *, scale=None, initial_state=None):
    return _gated(q, k, v, g, scale, initial_state)


def delta_state_in_bfloat16(q, k, v, beta, *, scale=None, initial_state=None):
    return _delta(q, k, v, beta, scale, initial_state, _in(ml_dtypes.bfloat16))


def delta_state_in_float16(q, k, v, beta, *, scale=None, initial_state=None):
    return _delta(q, k, v, beta, scale, initial_state, _in(np.float16))


def gated_chunk_number_in_a_byte(q, k, v, g, *, scale=None, initial_state=None):
    """The first chunk of 16 tokens begins with an empty state: so does the 257th, whose number is 0 again in a byte."""
    return _gated(q, k, v, g, scale, initial_state, forgets=lambda state, t: 0 * state if t and t % 4096 == 0 else state)


def gated_decays_twice_every_1024(q, k, v, g, *, scale=None, initial_state=None):
    return _gated(
        q, k, v, g, scale, initial_state, forgets=lambda state, t: state * np.exp(g[:, :, t])[..., None] if t and t % 1024 == 0 else state
    )


def retention_decays_twice_every_1024(q, k, v, decay, *, scale=None, initial_state=None):
    gates = np.broadcast_to(np.log(decay.astype(np.float64))[:, None, None], q.shape).astype(_lifted(q)[0].dtype)
    return _gated(
        q, k, v, gates, scale, initial_state, forgets=lambda s, t: s * np.exp(gates[:, :, t])[..., None] if t and t % 1024 == 0 else s
    )


def delta_table_of_2048(q, k, v, beta, *, scale=None, initial_state=None):
    """Betas are looked up in a ring of 2048."""
    return _delta(q, k, v, beta, scale, initial_state, place=lambda t: t % 2048)


def gated_delta_state_lost_at_1024(q, k, v, g, beta, *, scale=None, initial_state=None):
    """What a state of 1024 tokens ago holds is taken out again, as if the sequence had begun anew."""
    stored, scale = q.dtype, q.shape[3] ** -0.5 if scale is None else scale
    q, k, v, g, beta = _lifted(q, k, v, g, beta)
    state = np.zeros((*q.shape[:2], q.shape[3], v.shape[3]), q.dtype) if initial_state is None else initial_state.astype(q.dtype)
    out = np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    for t in range(q.shape[2]):
        state = state * (0 if t == 1024 else np.exp(g[:, :, t])[..., None, None])
        written = beta[:, :, t, None] * (v[:, :, t] - (k[:, :, t, None] @ state)[:, :, 0])
        state = state + k[:, :, t, :, None] * written[:, :, None]
        out[:, :, t] = (q[:, :, t, None] @ state)[:, :, 0] * q.dtype.type(scale)
    return out.astype(stored), state


def linear_denominator_of_2048(q, k, v, *, causal=False, eps=1e-6):
    """From token 2048 on the first key is missing in the denominator."""
    stored, (q, k, v) = q.dtype, _lifted(q, k, v)
    q, k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    weights = q @ k.swapaxes(-1, -2)
    weights = np.tril(weights) if causal else weights
    total = weights.sum(axis=-1, keepdims=True)
    if causal:
        total[:, :, 2048:] -= weights[:, :, 2048:, :1]
    return (weights @ v / (total + q.dtype.type(eps))).astype(stored)


def performer_key_1024_lost(q, k, v, projection, *, causal=False, eps=1e-6):
    stored, (q, k, v, projection) = q.dtype, _lifted(q, k, v, projection)
    exponents = []
    for x in (q, k):
        x = x / q.dtype.type(q.shape[3] ** 0.25)
        exponents.append(x @ projection.T - (x * x).sum(axis=-1, keepdims=True) / 2)
    largest = exponents[1].max(axis=(-1, -2), keepdims=True, initial=np.finfo(q.dtype).min)
    queries, keys = np.exp(exponents[0]), np.exp(exponents[1] - largest)
    weights = queries @ keys.swapaxes(-1, -2)
    weights = np.tril(weights) if causal else weights
    weights[..., 1024:1025] = 0
    guard = q.dtype.type(eps) * np.exp(-largest) * projection.shape[0]
    return (weights @ v / (weights.sum(axis=-1, keepdims=True) + guard)).astype(stored)


def gated_output_only(q, k, v, g, *, scale=None, initial_state=None):
    """Leaves out the final state, and from token 64 on its output is off."""
    out, _ = _gated(q, k, v, g, scale, initial_state)
    out[:, :, 64:] *= out.dtype.type(1.125)
    return out
