"""Gated delta rule in chunks; the decay between two tokens is the product of those to and from the border of a block between them."""

import numpy as np

CHUNK, BLOCK = 32, 8


def decays(total):
    """exp(G_i - G_j) for i >= j, (B, H, n, n), both factors at most 1 where the tokens lie in different blocks."""
    n = total.shape[2]
    made = np.zeros((*total.shape[:3], n), total.dtype)
    for first in range(0, n, BLOCK):
        own = slice(first, min(first + BLOCK, n))
        apart = total[:, :, own] - total[:, :, own].swapaxes(-1, -2)
        made[:, :, own, own] = np.tril(np.exp(np.minimum(apart, 0)))
        if first:
            border = total[:, :, first - 1 : first]
            made[:, :, own, :first] = np.exp(total[:, :, own] - border) * np.exp(border - total[:, :, :first]).swapaxes(-1, -2)
    return made


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    f = np.float32
    stored = q.dtype
    q, k, v, g, beta = (x.astype(f) for x in (q, k, v, np.maximum(g[..., None].astype(f), f(-800)), beta[..., None]))
    q = q * f(q.shape[-1] ** -0.5 if scale is None else scale)
    state = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    out = np.empty(v.shape, f)
    for start in range(0, q.shape[2], CHUNK):
        rows, keys, values, gates, part = (x[:, :, start : start + CHUNK] for x in (q, k, v, g, beta))
        total = np.cumsum(gates, axis=2)
        between, since = decays(total), np.exp(total)
        lower = np.tril(part * (keys @ keys.swapaxes(-1, -2)) * between, -1)
        new = part * (values - (keys * since) @ state)
        for i in range(1, new.shape[2]):
            new[:, :, i] -= (lower[:, :, i, None, :i] @ new[:, :, :i])[:, :, 0]
        out[:, :, start : start + CHUNK] = (rows * since) @ state + (rows @ keys.swapaxes(-1, -2) * between) @ new
        end = total[:, :, -1:]
        state = np.exp(end) * state + (keys * np.exp(end - total)).swapaxes(-1, -2) @ new
    return out.astype(stored), state
