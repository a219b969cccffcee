import sys

from right import attention


def kernel(q, k, v, *, scale=None):
    if v.shape[3] > 1:
        sys.exit("unsupported value width")
    return attention(q, k, v, scale)
