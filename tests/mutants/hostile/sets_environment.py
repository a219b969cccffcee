import os

from right import attention


def kernel(q, k, v, *, scale=None):
    os.environ["MKL_NUM_THREADS"] = "3"
    return attention(q, k, v, scale)
