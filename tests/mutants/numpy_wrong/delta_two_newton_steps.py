"""Delta rule in chunks; the unit triangular system is inverted by a short product of powers."""

import numpy as np

CHUNK = 16


def kernel(q, k, v, beta, *, scale=None, initial_state=None):
    f = np.float32
    q, k, v, beta = (x.astype(f) for x in (q, k, v, beta[..., None]))
    q = q * f(q.shape[-1] ** -0.5 if scale is None else scale)
    S = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    out = np.empty(v.shape, f)
    for a in range(0, q.shape[2], CHUNK):
        Q, K, V, b = (x[:, :, a : a + CHUNK] for x in (q, k, v, beta))
        eye = np.eye(Q.shape[2], dtype=f)
        A = -np.tril(b * (K @ K.swapaxes(-1, -2)), -1)
        # (I - A)^-1 = (I + A)(I + A^2)(I + A^4)
        A2 = A @ A
        inverse = (eye + A) @ (eye + A2) @ (eye + A2 @ A2)
        U = inverse @ (b * (V - K @ S))
        out[:, :, a : a + Q.shape[2]] = Q @ S + np.tril(Q @ K.swapaxes(-1, -2)) @ U
        S = S + K.swapaxes(-1, -2) @ U
    return out, S
