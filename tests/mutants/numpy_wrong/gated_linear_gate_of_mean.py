import numpy as np


def kernel(q, k, v, *, eps=1e-6):
    gate = 1 / (1 + np.exp(-k.mean(-1, keepdims=True)))
    fq, fk = np.maximum(q, 0) + 1, (np.maximum(k, 0) + 1) * gate
    w = fq @ fk.swapaxes(-1, -2)
    return w @ v / (w.sum(-1, keepdims=True) + eps)
