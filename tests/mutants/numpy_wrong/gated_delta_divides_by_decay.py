"""Gated delta rule in chunks: keys are divided by the decay since the chunk began, queries multiplied by it."""

import numpy as np

CHUNK = 32


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    f = np.float32
    q, k, v, g, beta = (x.astype(f) for x in (q, k, v, g[..., None], beta[..., None]))
    q = q * f(q.shape[-1] ** -0.5 if scale is None else scale)
    S = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    out = np.empty(v.shape, f)
    with np.errstate(all="ignore"):
        for a in range(0, q.shape[2], CHUNK):
            Q, K, V, b = (x[:, :, a : a + CHUNK] for x in (q, k, v, beta))
            n = Q.shape[2]
            since = np.exp(np.cumsum(g[:, :, a : a + n], axis=2))
            lifted = (K / since).swapaxes(-1, -2)
            A = np.tril(b * ((K * since) @ lifted), -1)
            U = np.linalg.solve(np.eye(n, dtype=f) + A, b * (V - (K * since) @ S))
            out[:, :, a : a + n] = (Q * since) @ S + np.tril((Q * since) @ lifted) @ U
            S = since[:, :, -1:] * (S + lifted @ U)
    return out, S
