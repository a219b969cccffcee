import sys

from right import attention


def kernel(q, k, v, *, scale=None):
    sys.setrecursionlimit(100_000)
    return attention(q, k, v, scale)
