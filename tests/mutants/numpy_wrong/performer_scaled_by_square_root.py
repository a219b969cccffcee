import numpy as np


def kernel(q, k, v, projection, *, eps=1e-6):
    x, y = q / np.sqrt(q.dtype.type(q.shape[-1])), k / np.sqrt(q.dtype.type(q.shape[-1]))
    a, b = x @ projection.T - (x * x).sum(-1, keepdims=True) / 2, y @ projection.T - (y * y).sum(-1, keepdims=True) / 2
    fq = np.exp(a - a.max(-1, keepdims=True))
    fk = np.exp(b - b.max((-1, -2), keepdims=True, initial=-1e30))
    m = len(projection)
    return fq @ (fk.swapaxes(2, 3) @ v / m) / (fq @ (fk.sum(2) / m)[..., None] + eps)
