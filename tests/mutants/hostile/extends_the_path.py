import sys

from right import attention


def kernel(q, k, v, *, scale=None):
    sys.path.insert(0, "/opt/kernels")
    return attention(q, k, v, scale)
