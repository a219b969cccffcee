"""Retention in chunks as two plain products, keys divided by powers of the decay: in double precision, which has the range for it."""

import numpy as np

CHUNK = 16


def kernel(q, k, v, decay, *, scale=None, initial_state=None):
    stored = q.dtype
    q, k, v, gamma = (x.astype(np.float64) for x in (q, k, v, decay[:, None, None]))
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    state = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1])) if initial_state is None else initial_state.astype(np.float64)
    out = np.empty(v.shape)
    for start in range(0, q.shape[2], CHUNK):
        rows, keys, values = (x[:, :, start : start + CHUNK] for x in (q, k, v))
        power = gamma ** np.arange(1.0, rows.shape[2] + 1)[:, None]
        rows, keys = rows * power, keys / power
        out[:, :, start : start + CHUNK] = np.tril(rows @ keys.swapaxes(-1, -2)) @ values + rows @ state
        state = power[:, -1:] * (state + keys.swapaxes(-1, -2) @ values)
    return out.astype(stored), state.astype(np.float32)
