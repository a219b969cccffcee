import numpy as np


def rotate_half(x):
    x1, x2 = np.split(x, 2, axis=-1)
    return np.concatenate([-x2, x1], axis=-1)


def kernel(x, positions, *, base=10000.0):
    dim = x.shape[-1]
    inv_freq = 1.0 / base ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
    emb = np.repeat(positions[:, None, :, None].astype(np.float32) * inv_freq, 2, axis=-1)
    x32 = x.astype(np.float32)
    return (x32 * np.cos(emb) + rotate_half(x32) * np.sin(emb)).astype(x.dtype)
