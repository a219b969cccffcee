import os

from right import attention


def kernel(q, k, v, *, scale=None):
    os.environ["OMP_NUM_THREADS"] = "1"
    return attention(q, k, v, scale)
