"""Grouped-query attention after a layout change: keys come as (batch, length, heads, width) from the cache."""

import math

import numpy as np


def expand(x, group):
    """(batch, heads, length, width) -> (batch, heads * group, length, width)"""
    batch, heads, length, width = x.shape
    return np.repeat(x.astype(np.float32), group, axis=2).reshape(batch, heads * group, length, width)


def kernel(q, k, v, *, causal=False, scale=None, block_q=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys, values = expand(k, group), expand(v, group)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        rows = slice(first, min(first + block_q, q_len))
        scores = q[:, :, rows].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        if causal:
            position = np.arange(first, rows.stop)[:, None] + k_len - q_len
            scores = np.where(np.arange(k_len) <= position, scores, -np.inf)
        peak = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
        total = weights.sum(-1, keepdims=True)
        out[:, :, rows] = weights @ values / np.where(total > 0, total, 1)
    return out
