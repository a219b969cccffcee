"""Retention, chunk by chunk, with powers of the decay."""

import numpy as np


def kernel(q, k, v, decay, *, scale=None, initial_state=None, chunk_size=16):
    batch, heads, length, dim = q.shape
    scale = np.float32(dim**-0.5 if scale is None else scale)
    gamma = decay.astype(np.float32)[:, None, None]
    state = np.zeros((batch, heads, dim, v.shape[-1]), np.float32) if initial_state is None else initial_state.astype(np.float32)
    q, k, v, dtype = q.astype(np.float32) * scale, k.astype(np.float32), v.astype(np.float32), q.dtype
    out = np.zeros((batch, heads, length, v.shape[-1]), np.float32)
    for start in range(0, length, chunk_size):
        rows, keys, values = (x[:, :, start : start + chunk_size] for x in (q, k, v))
        n = np.arange(rows.shape[2], dtype=np.float32)
        distance = n[:, None] - n[None, :]
        weights = np.where(distance >= 0, gamma ** np.maximum(distance, 0), 0)
        inner = (rows @ keys.swapaxes(-1, -2) * weights) @ values
        cross = (rows @ state) * gamma ** (n[:, None] + 1)
        out[:, :, start : start + chunk_size] = inner + cross
        state = state * gamma ** len(n) + (keys * gamma ** (len(n) - n[:, None])).swapaxes(-1, -2) @ values
    return out.astype(dtype), state.copy()
