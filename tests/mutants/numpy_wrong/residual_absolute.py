import numpy as np


def kernel(p, q):
    a, b = p.astype(np.float32), q.astype(np.float32)
    d = np.abs(a - b)
    s = d.sum(-1, keepdims=True)
    return np.where(s > 0, d / np.where(s > 0, s, 1), a).astype(p.dtype)
