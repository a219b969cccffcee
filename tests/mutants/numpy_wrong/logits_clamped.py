"""Attention whose logits are clamped so that the exponential can neither overflow nor underflow; no maximum is needed."""

import math

import numpy as np

LIMIT = 60.0


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width)
    scores = queries @ k.astype(np.float32).swapaxes(-1, -2) * scale
    weights = np.exp(np.clip(scores, -LIMIT, LIMIT))
    if causal:
        rows = np.tile(np.arange(q_len), group)[:, None] + k_len - q_len
        weights = np.where(np.arange(k_len) <= rows, weights, 0)
    total = weights.sum(-1, keepdims=True)
    out = (weights @ v.astype(np.float32)) / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
