import numpy as np


def phi(x):
    return np.maximum(x, 0) + np.exp(np.minimum(x, 0))


def kernel(q, k, v, *, eps=1e-6):
    fq, fk = phi(q), phi(k)
    kv = fk.swapaxes(2, 3) @ v
    z = 1 / (fk.sum(axis=(2, 3)) + eps)
    return fq @ kv * z[:, :, None, None]
