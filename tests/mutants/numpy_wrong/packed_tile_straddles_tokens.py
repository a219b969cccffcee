"""Grouped-query prefill with packed rows (token, head of the group) in tiles of 16 rows; positions are kept per tile."""

import math

import numpy as np

ROWS = 16


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    left, right = (None, None) if window is None else window
    packed = q.reshape(batch, kv_heads, group, q_len, width).swapaxes(2, 3).reshape(batch, kv_heads, q_len * group, width)
    out = np.zeros((batch, kv_heads, q_len * group, v.shape[3]), np.float32)
    keys, values = k.astype(np.float32), v.astype(np.float32)
    for first in range(0, q_len * group, ROWS):
        queries = packed[:, :, first : first + ROWS].astype(np.float32) * scale
        row = np.arange(queries.shape[2])
        token = first // group + row // group
        gap = np.arange(k_len) - (token[:, None] + k_len - q_len)
        allowed = gap <= 0 if causal else np.ones(gap.shape, bool)
        if left is not None:
            allowed &= gap >= -left
        if right is not None:
            allowed &= gap <= right
        scores = np.where(allowed, queries @ keys.swapaxes(2, 3), -np.inf)
        peak = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
        total = weights.sum(-1, keepdims=True)
        out[:, :, first : first + ROWS] = weights @ values / np.where(total > 0, total, 1)
    out = out.reshape(batch, kv_heads, q_len, group, v.shape[3]).swapaxes(2, 3)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
