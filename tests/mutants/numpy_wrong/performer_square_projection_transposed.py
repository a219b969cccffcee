import numpy as np


def kernel(q, k, v, projection, *, eps=1e-6):
    d = q.shape[-1]
    matrix = projection if projection.shape[0] == d else projection.T  # (D, M)
    x, y = q * q.dtype.type(d**-0.25), k * k.dtype.type(d**-0.25)
    a, b = x @ matrix - (x * x).sum(-1, keepdims=True) / 2, y @ matrix - (y * y).sum(-1, keepdims=True) / 2
    fq = np.exp(a - a.max(-1, keepdims=True))
    fk = np.exp(b - b.max((-1, -2), keepdims=True, initial=-1e30)) / matrix.shape[1]
    return fq @ (fk.swapaxes(2, 3) @ v) / (fq @ fk.sum(2)[..., None] + eps)
