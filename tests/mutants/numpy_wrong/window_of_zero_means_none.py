"""Plain attention with a mask and a window."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, window=None, scale=None):
    q_heads, q_len, width = q.shape[1:]
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    left, right = window if window is not None else (None, None)
    gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    allowed = np.ones((q_len, k_len), bool)
    if left:
        allowed = allowed & (gap >= -left)
    if right is not None:
        allowed = allowed & (gap <= right)
    if mask is not None:
        allowed = allowed & mask
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = np.where(allowed, q.astype(np.float32) @ keys.swapaxes(2, 3) * scale, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
