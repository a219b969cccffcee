import numpy as np


def kernel(q, k, v, *, eps=1e-6):
    gate = 1 / (1 + np.exp(-k.sum(-1, keepdims=True)))
    fq, fk = np.maximum(q, 0) + 1, np.maximum(k, 0) + 1
    kv = fk.swapaxes(-1, -2) @ (gate * v)
    return fq @ kv / (fq @ fk.sum(2)[..., None] + eps)
