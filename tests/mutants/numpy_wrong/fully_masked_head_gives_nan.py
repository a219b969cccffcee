"""Attention with masks for single heads; rows without any key are set aside before the softmax."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    set_aside = ~allowed.any(axis=(1, 3), keepdims=True)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = np.where(allowed, q.astype(np.float32) @ keys.swapaxes(2, 3) * scale, -np.inf)
    scores = np.where(set_aside, 0, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    return np.where(set_aside, 0, weights @ values).astype(q.dtype)
