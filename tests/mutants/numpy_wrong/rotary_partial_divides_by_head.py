import numpy as np


def kernel(x, positions, *, base=10000.0, rotary_width=None):
    dim = x.shape[-1]
    rot = dim if rotary_width is None else rotary_width
    inv_freq = 1.0 / base ** (np.arange(0, rot, 2, dtype=np.float32) / dim)
    ang = positions[:, None, :, None].astype(np.float32) * inv_freq.astype(np.float32)
    c, s = np.cos(ang), np.sin(ang)
    x1, x2 = (x[..., i * (rot // 2) : (i + 1) * (rot // 2)].astype(np.float32) for i in (0, 1))
    turned = [(x1 * c - x2 * s).astype(x.dtype), (x2 * c + x1 * s).astype(x.dtype)]
    return np.concatenate([*turned, x[..., rot:]], axis=-1)
