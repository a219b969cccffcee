import numpy as np


def kernel(q, k, v, *, eps=1e-6):
    with np.errstate(all="ignore"):
        grown = np.exp(k.sum(axis=-1, keepdims=True))
        gate = grown / (1 + grown)
    fq, fk = np.maximum(q, 0) + 1, np.maximum(k, 0) + 1
    values = np.concatenate([v, np.ones_like(v[..., :1])], axis=-1) * gate
    sums = fq @ (fk.swapaxes(2, 3) @ values)
    return sums[..., :-1] / (sums[..., -1:] + eps)
