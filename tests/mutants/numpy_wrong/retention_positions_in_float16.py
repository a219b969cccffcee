"""Retention, all weights at once; the table of positions is kept in 16 bits, as the indices of a short sequence may be."""

import numpy as np


def kernel(q, k, v, decay, *, scale=None):
    f = np.float32
    stored, (q, k, v) = q.dtype, (x.astype(f) for x in (q, k, v))
    scale = f(q.shape[-1] ** -0.5 if scale is None else scale)
    position = np.arange(q.shape[2]).astype(np.float16)
    distance = position.astype(f)[:, None] - position.astype(f)[None, :]
    weights = (q @ k.swapaxes(-1, -2)) * scale
    weights *= np.exp(np.log(decay.astype(f))[:, None, None] * np.maximum(distance, 0))
    return (np.tril(weights) @ v).astype(stored)
