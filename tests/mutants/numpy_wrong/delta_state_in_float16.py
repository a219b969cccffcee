"""Delta rule, one token after the other; the state lives in a buffer between the tokens."""

import numpy as np


def kernel(q, k, v, beta, *, scale=None):
    f = np.float32
    scale = f(q.shape[-1] ** -0.5 if scale is None else scale)
    buffer = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1]), np.float16)
    out = np.empty(v.shape, q.dtype)
    for t in range(q.shape[2]):
        S = buffer.astype(f)
        kt = k[:, :, t].astype(f)
        new = beta[:, :, t, None].astype(f) * (v[:, :, t].astype(f) - (kt[:, :, None] @ S)[:, :, 0])
        S += kt[..., None] * new[:, :, None]
        out[:, :, t] = (q[:, :, t, None].astype(f) @ S)[:, :, 0] * scale
        buffer[...] = S
    return out
