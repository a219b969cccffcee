import numpy as np


def kernel(x, positions, *, base=10000.0, interleaved=False, rotary_width=None):
    rot = x.shape[-1] if rotary_width is None else rotary_width
    freq = float(base) ** -(np.arange(0, rot, 2) / max(rot, 1))
    angle = np.mod(positions[:, None, :, None] * freq, 2 * np.pi).astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    out = x.copy()
    first, second = (np.arange(0, rot, 2), np.arange(1, rot, 2)) if interleaved else (np.arange(rot // 2), np.arange(rot // 2, rot))
    a, b = x[..., first].astype(np.float32), x[..., second].astype(np.float32)
    out[..., first], out[..., second] = (a * cos - b * sin).astype(x.dtype), (a * sin + b * cos).astype(x.dtype)
    return out
