import numpy as np


def kernel(x, positions, *, base=10000.0):
    half = x.shape[-1] // 2
    inv_freq = (1.0 / base ** (np.arange(half) / max(half, 1))).astype(np.float32)
    freqs = np.outer(positions[0].astype(np.float32), inv_freq) if len(positions) else np.zeros((x.shape[2], half), np.float32)
    z = (x[..., :half] + 1j * x[..., half:].astype(np.float32)) * np.exp(1j * freqs)
    return np.concatenate([z.real, z.imag], axis=-1).astype(x.dtype)
