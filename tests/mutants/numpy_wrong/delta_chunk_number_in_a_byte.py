"""Delta rule, chunk by chunk; chunk 0, which has no state to read, is told by a number that is kept in 8 bits."""

import numpy as np

CHUNK = 16


def kernel(q, k, v, beta, *, scale=None, initial_state=None):
    f = np.float32
    stored, (q, k, v, beta) = q.dtype, (x.astype(f) for x in (q, k, v, beta[..., None]))
    q = q * f(q.shape[-1] ** -0.5 if scale is None else scale)
    state = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    fresh = initial_state is None
    out = np.empty(v.shape, f)
    number = np.zeros(1, np.uint8)
    for start in range(0, q.shape[2], CHUNK):
        rows, keys, values, part = (x[:, :, start : start + CHUNK] for x in (q, k, v, beta))
        n = rows.shape[2]
        solved = np.eye(n, dtype=f) + np.tril(part * (keys @ keys.swapaxes(-1, -2)), -1)
        new = part * values
        if not (fresh and number[0] == 0):
            new = new - part * (keys @ state)
        for i in range(1, n):
            new[:, :, i] -= (solved[:, :, i, None, :i] @ new[:, :, :i])[:, :, 0]
        out[:, :, start : start + n] = rows @ state + np.tril(rows @ keys.swapaxes(-1, -2)) @ new
        state = state + keys.swapaxes(-1, -2) @ new
        number += 1
    return out.astype(stored), state
