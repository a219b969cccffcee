"""Delta rule with a path of its own for the single token of a decoding step."""

import numpy as np


def kernel(q, k, v, beta, *, scale=None, initial_state=None):
    f = np.float32
    stored, (q, k, v, beta) = q.dtype, (x.astype(f) for x in (q, k, v, beta[..., None]))
    q = q * f(q.shape[-1] ** -0.5 if scale is None else scale)
    state = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    if q.shape[2] == 1:
        new = beta * (v - k @ state)
        out = q @ state + (q * k).sum(axis=-1, keepdims=True) * new
        return out.astype(stored), state.copy()
    out = np.empty(v.shape, f)
    for t in range(q.shape[2]):
        key = k[:, :, t, None]
        state = state + key.swapaxes(-1, -2) @ (beta[:, :, t, None] * (v[:, :, t, None] - key @ state))
        out[:, :, t] = (q[:, :, t, None] @ state)[:, :, 0]
    return out.astype(stored), state.copy()
