"""Queries-outer attention: maximum first, then weights, then the mask as a selection on the weights."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        rows = slice(first, first + block_q)
        scores = q[:, :, rows].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        peak = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.where(allowed[:, :, rows], np.exp(scores - peak), 0)
        total = weights.sum(-1, keepdims=True)
        out[:, :, rows] = weights @ values / np.where(total > 0, total, 1)
    return out
