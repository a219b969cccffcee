"""Plain attention that returns the logarithm of its denominator, with boolean masks and windows."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & (gap <= 0)
    if window is not None:
        left, right = window
        if left is not None:
            allowed = allowed & (gap >= -left)
        if right is not None:
            allowed = allowed & (gap <= right)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = np.where(allowed, q.astype(np.float32) @ keys.swapaxes(2, 3) * scale, -np.inf)
    peak = scores.max(-1, initial=-np.inf)
    peak = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - peak[..., None])
    total = weights.sum(-1)
    total = np.where(total > 0, total, 1)
    return (weights @ values / total[..., None]).astype(q.dtype), (peak + np.log(total)).astype(np.float32)
