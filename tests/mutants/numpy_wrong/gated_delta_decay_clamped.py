"""Gated delta rule, one token after the other; log gates are kept above -5 for stability."""

import numpy as np


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    f = np.float32
    scale = f(q.shape[-1] ** -0.5 if scale is None else scale)
    S = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    decay = np.exp(np.clip(g.astype(f), -5.0, 0.0))
    out = np.empty(v.shape, q.dtype)
    for t in range(q.shape[2]):
        S = decay[:, :, t, None, None] * S
        kt, vt = k[:, :, t].astype(f), v[:, :, t].astype(f)
        delta = beta[:, :, t, None].astype(f) * (vt - np.einsum("bhd,bhde->bhe", kt, S))
        S += kt[..., None] * delta[:, :, None]
        out[:, :, t] = np.einsum("bhd,bhde->bhe", q[:, :, t].astype(f), S) * scale
    return out, S
