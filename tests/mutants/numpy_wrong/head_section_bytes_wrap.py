"""Scheduler that walks heads in sections whose keys and values stay in a small cache together."""

import math

import numpy as np

CACHE_BYTES = 1 << 17
COUNTER_BITS = 20


def sections(heads, bytes_of_head):
    """First and last head of every section."""
    size = max(1, CACHE_BYTES // max(bytes_of_head, 1))
    total = heads * bytes_of_head & (1 << COUNTER_BITS) - 1
    count = max(1, math.ceil(total / max(size * bytes_of_head, 1)))
    return [(section * size, min(section * size + size, heads)) for section in range(count)]


def kernel(q, k, v, *, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group, value_width = k.shape[2], heads // k.shape[1], v.shape[3]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, heads, q_len, value_width), q.dtype)
    for first, last in sections(heads, k_len * (width + value_width) * 4):
        scores = q[:, first:last].astype(np.float32) @ keys[:, first:last].swapaxes(2, 3) * scale
        weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
        total = weights.sum(-1, keepdims=True)
        out[:, first:last] = weights @ values[:, first:last] / np.where(total > 0, total, 1)
    return out
