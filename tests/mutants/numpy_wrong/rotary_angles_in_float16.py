import numpy as np


def kernel(x, positions, *, base=10000.0, interleaved=False):
    dim = x.shape[-1]
    inv_freq = (1.0 / base ** (np.arange(0, dim, 2) / dim)).astype(x.dtype)
    ang = (positions[:, None, :, None].astype(x.dtype) * inv_freq).astype(np.float32)
    c, s = np.cos(ang), np.sin(ang)
    y = np.array(x, dtype=np.float32)
    a, b = (y[..., 0::2].copy(), y[..., 1::2].copy()) if interleaved else (y[..., : dim // 2].copy(), y[..., dim // 2 :].copy())
    first, second = a * c - b * s, a * s + b * c
    if interleaved:
        y[..., 0::2], y[..., 1::2] = first, second
    else:
        y[..., : dim // 2], y[..., dim // 2 :] = first, second
    return y.astype(x.dtype)
