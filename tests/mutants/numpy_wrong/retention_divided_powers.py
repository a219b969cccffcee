"""Retention in chunks of 64 as two plain products: queries times powers of the decay, keys divided by them."""

import numpy as np

CHUNK = 64


def kernel(q, k, v, decay, *, scale=None, initial_state=None):
    f = np.float32
    stored, (q, k, v) = q.dtype, (x.astype(f) for x in (q, k, v))
    q = q * f(q.shape[-1] ** -0.5 if scale is None else scale)
    gamma = decay.astype(f)[:, None, None]
    state = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    out = np.empty(v.shape, f)
    with np.errstate(all="ignore"):
        for start in range(0, q.shape[2], CHUNK):
            rows, keys, values = (x[:, :, start : start + CHUNK] for x in (q, k, v))
            n = rows.shape[2]
            power = gamma ** np.arange(1, n + 1, dtype=f)[:, None]
            rows, keys = rows * power, keys / power
            out[:, :, start : start + n] = np.tril(rows @ keys.swapaxes(-1, -2)) @ values + rows @ state
            state = power[:, -1:] * (state + keys.swapaxes(-1, -2) @ values)
    return out.astype(stored), state
