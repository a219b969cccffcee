import warnings

from right import attention


def kernel(q, k, v, *, scale=None):
    warnings.simplefilter("error")
    return attention(q, k, v, scale)
