import numpy as np


def kernel(q, k, v, *, causal=False, scale=None):
    """One process is a ring too."""
    k, v = (np.repeat(x.astype(np.float64), q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    logits = q.astype(np.float64) @ k.swapaxes(2, 3) * (q.shape[3] ** -0.5 if scale is None else scale)
    if causal:
        logits = np.where(np.tri(q.shape[2], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-np.inf))
    return (weights @ v / weights.sum(-1, keepdims=True)).astype(q.dtype)
