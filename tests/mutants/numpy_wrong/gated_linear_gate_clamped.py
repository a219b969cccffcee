import numpy as np


def kernel(q, k, v, *, eps=1e-6):
    logit = np.clip(k.sum(axis=-1, keepdims=True), -6, 6)
    gate = 1 / (1 + np.exp(-logit))
    fq, fk = np.maximum(q, 0) + 1, (np.maximum(k, 0) + 1) * gate
    return fq @ (fk.swapaxes(2, 3) @ v) / (fq @ fk.sum(axis=2)[..., None] + eps)
