"""Gated delta rule in chunks, whose keys and written values lie in buffers that the last chunk fills only in part."""

import numpy as np

CHUNK = 16


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    f = np.float32
    stored = q.dtype
    q, k, v, g, beta = (x.astype(f) for x in (q, k, v, np.maximum(g[..., None].astype(f), f(-800)), beta[..., None]))
    q = q * f(q.shape[-1] ** -0.5 if scale is None else scale)
    batch, heads, length, width = q.shape
    state = np.zeros((batch, heads, width, v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    out = np.empty(v.shape, f)
    left, new = np.zeros((batch, heads, CHUNK, width), f), np.zeros((batch, heads, CHUNK, v.shape[-1]), f)
    for start in range(0, length, CHUNK):
        rows, keys, values, gates, part = (x[:, :, start : start + CHUNK] for x in (q, k, v, g, beta))
        n, total = rows.shape[2], np.cumsum(gates, axis=2)
        apart = np.where(np.tri(n, dtype=bool), total - total.swapaxes(-1, -2), -np.inf)
        lower = np.tril(part * (keys @ keys.swapaxes(-1, -2)) * np.exp(apart), -1)
        new[:, :, :n] = part * (values - (keys * np.exp(total)) @ state)
        for i in range(1, n):
            new[:, :, i] -= (lower[:, :, i, None, :i] @ new[:, :, :i])[:, :, 0]
        out[:, :, start : start + n] = (rows * np.exp(total)) @ state + (rows @ keys.swapaxes(-1, -2) * np.exp(apart)) @ new[:, :, :n]
        end = total[:, :, -1:]
        left[:, :, :n] = keys * np.exp(end - total)
        state = np.exp(end) * state + left.swapaxes(-1, -2) @ new
    return out.astype(stored), state
