"""Fixed sparse attention: a ring buffer holds the summaries of earlier blocks."""

import numpy as np

RING = 8


def kernel(q, k, v, *, stride, c=1, scale=None):
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scale = np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    out = np.zeros((*q.shape[:3], v.shape[-1]), q.dtype)
    ring = []
    for start in range(0, length, stride):
        stop = min(start + stride, length)
        own = np.arange(start, stop)
        summaries = np.concatenate([*ring, own[:0]])
        keys = np.concatenate([summaries, own])
        scores = q[:, :, start:stop] @ k[:, :, keys].swapaxes(2, 3) * scale
        scores = np.where(keys <= own[:, None], scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, :, start:stop] = weights @ v[:, :, keys] / weights.sum(axis=-1, keepdims=True)
        ring = [*ring, np.arange(start + stride - c, start + stride)][-RING:]
    return out
