import numpy as np

TABLE = 4096


def kernel(x, positions, *, base=10000.0):
    half = x.shape[-1] // 2
    inv_freq = base ** (-np.arange(half, dtype=np.float32) / max(half, 1))
    table = np.arange(TABLE, dtype=np.float32)[:, None] * inv_freq.astype(np.float32)
    cos, sin = np.cos(table), np.sin(table)
    idx = positions % TABLE
    c, s = cos[idx][:, None], sin[idx][:, None]
    x1, x2 = x[..., :half].astype(np.float32), x[..., half:].astype(np.float32)
    return np.concatenate([x1 * c - x2 * s, x2 * c + x1 * s], axis=-1).astype(x.dtype)
