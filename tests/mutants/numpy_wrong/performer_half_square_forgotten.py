import numpy as np


def kernel(q, k, v, projection, *, causal=False, eps=1e-6):
    root = q.dtype.type(q.shape[-1] ** 0.25)
    a, b = q / root @ projection.T, k / root @ projection.T
    fq = np.exp(a - a.max(-1, keepdims=True))
    fk = np.exp(b - b.max((-1, -2), keepdims=True, initial=-1e30))
    w = fq @ fk.swapaxes(-1, -2) / len(projection)
    w = np.tril(w) if causal else w
    return w @ v / (w.sum(-1, keepdims=True) + eps)
