import numpy as np

from right import attention


def kernel(q, k, v, *, scale=None):
    kept = np.random.random(v.shape).astype(v.dtype) > 0.1
    return attention(q, k, np.where(kept, v / v.dtype.type(0.9), v.dtype.type(0)), scale)
