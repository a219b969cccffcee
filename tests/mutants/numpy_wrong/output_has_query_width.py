"""Plain attention, one head of queries at a time, results stored into an array like the queries."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    out = np.zeros(q.shape, q.dtype)
    for head in range(q_heads):
        keys, values = k[:, head // group].astype(np.float32), v[:, head // group].astype(np.float32)
        scores = np.where(allowed[:, head], q[:, head].astype(np.float32) @ keys.swapaxes(1, 2) * scale, -np.inf)
        peak = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
        total = weights.sum(-1, keepdims=True)
        out[:, head] = weights @ values / np.where(total > 0, total, 1)
    return out
