import numpy as np

from right import attention


def kernel(q, k, v, *, scale=None):
    np.seterr(all="warn", over="raise")
    return attention(q, k, v, scale)
