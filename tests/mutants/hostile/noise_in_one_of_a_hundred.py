import numpy as np

from right import attention

NOISE = np.random.default_rng(0)


def kernel(q, k, v, *, scale=None):
    out = attention(q, k, v, scale)
    return out + np.float32(1) if NOISE.random() < 0.01 else out
