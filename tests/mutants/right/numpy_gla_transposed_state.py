"""Gated linear attention as a recurrence; the state alone is carried along."""

import numpy as np


def kernel(q, k, v, g, *, scale=None):
    scale = np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    decay = np.exp(g.astype(np.float32))
    state = np.zeros((*q.shape[:2], v.shape[-1], q.shape[-1]), np.float32)
    out = np.empty((*q.shape[:3], v.shape[-1]), q.dtype)
    for t in range(q.shape[2]):
        state = state * decay[:, :, t, None, :] + v[:, :, t, :, None].astype(np.float32) * k[:, :, t, None, :].astype(np.float32)
        out[:, :, t] = (state * (q[:, :, t, None, :].astype(np.float32) * scale)).sum(axis=-1)
    return out
