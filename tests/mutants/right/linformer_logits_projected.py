import numpy as np


def kernel(q, k, v, e, f, *, scale=None):
    stored = q.dtype
    wide = np.float64 if stored == np.float64 else np.float32
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, e, f = (x.astype(wide) for x in (q, k, v, e, f))
    logits = (q @ k.swapaxes(-1, -2)) @ e.T * wide(scale)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights @ f @ v / weights.sum(axis=-1, keepdims=True)).astype(stored)
