import numpy as np

from right import attention


def kernel(q, k, v, *, scale=None):
    np.set_printoptions(precision=3)
    return attention(q, k, v, scale)
