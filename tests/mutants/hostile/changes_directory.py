import os

from right import attention


def kernel(q, k, v, *, scale=None):
    os.chdir("/")
    return attention(q, k, v, scale)
