"""Delta rule, one token after the other."""

import numpy as np


def kernel(q, k, v, beta, *, scale=None, initial_state=None):
    f = np.float32
    scale = f(q.shape[-1] ** -0.5 if scale is None else scale)
    S = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), f) if initial_state is None else initial_state.astype(f)
    out = np.empty(v.shape, q.dtype)
    for t in range(q.shape[2]):
        kt, vt, bt = k[:, :, t].astype(f), v[:, :, t].astype(f), beta[:, :, t, None].astype(f)
        old = np.einsum("bhd,bhde->bhe", kt, S)
        S = S + np.einsum("bhd,bhe->bhde", kt, bt * vt - old)
        out[:, :, t] = np.einsum("bhd,bhde->bhe", q[:, :, t].astype(f), S) * scale
    return out, S
