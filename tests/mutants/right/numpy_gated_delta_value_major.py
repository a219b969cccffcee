import numpy as np


def kernel(q, k, v, g, beta, *, scale=None, initial_state=None):
    """The state is kept transposed, values first, and the decay is delayed into the next read."""
    f = np.float64 if q.dtype == np.float64 else np.float32
    root = f(np.sqrt(q.shape[-1] ** -0.5)) if scale is None else None
    S = np.zeros((*q.shape[:2], v.shape[-1], q.shape[-1]), f)
    if initial_state is not None:
        S += initial_state.astype(f).swapaxes(-1, -2)
    out = np.empty(v.shape, q.dtype)
    for t in range(q.shape[2]):
        alpha = np.exp(g[:, :, t].astype(f))[..., None]
        kt, qt = k[:, :, t].astype(f), q[:, :, t].astype(f)
        old = alpha * (S * kt[..., None, :]).sum(-1)
        new = beta[:, :, t, None].astype(f) * (v[:, :, t].astype(f) - old)
        S = alpha[..., None] * S + new[..., None] * kt[..., None, :]
        qt = qt * root * root if root is not None else qt * f(scale)
        out[:, :, t] = (S * qt[..., None, :]).sum(-1)
    return out, S.swapaxes(-1, -2)
