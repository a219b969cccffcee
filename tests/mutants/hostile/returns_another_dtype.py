import numpy as np

from right import attention


def kernel(q, k, v, *, scale=None):
    return attention(q, k, v, scale).astype(np.float64)
