import numpy as np


def kernel(q, k, v, beta, *, scale=None, initial_state=None):
    wide = np.float64
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    state_dtype = np.float64 if q.dtype == np.float64 else np.float32
    S = np.zeros((*q.shape[:2], q.shape[-1], v.shape[-1])) if initial_state is None else initial_state.astype(wide)
    out = np.empty(v.shape, q.dtype)
    eye = np.eye(q.shape[-1])
    for t in range(q.shape[2]):
        kt, bt = k[:, :, t].astype(wide), beta[:, :, t, None, None].astype(wide)
        reflection = eye - bt * (kt[..., :, None] * kt[..., None, :])
        S = reflection @ S + bt * (kt[..., :, None] * v[:, :, t, None, :].astype(wide))
        out[:, :, t] = (scale * (q[:, :, t, None].astype(wide) @ S))[:, :, 0]
    return out, S.astype(state_dtype)
