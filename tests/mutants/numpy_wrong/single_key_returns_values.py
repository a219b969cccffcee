"""Attention with a short cut for the first decode step: over one key the softmax is 1 and the result is its value."""

import math

import numpy as np


def kernel(q, k, v, *, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    if k_len == 1 and group == 1:
        return np.broadcast_to(v, (batch, q_heads, q_len, v.shape[3]))
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width)
    scores = queries @ k.astype(np.float32).swapaxes(2, 3) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    total = weights.sum(-1, keepdims=True)
    out = weights @ v.astype(np.float32) / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
