"""Attention module of an encoder-decoder; the boolean mask marks key positions."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    scores = q.astype(np.float32) @ np.repeat(k.astype(np.float32), group, axis=1).swapaxes(-2, -1) * scale
    if mask is not None:
        scores[np.broadcast_to(mask, (batch, q_heads, q_len, k_len))] = -np.inf
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights / np.where(total > 0, total, 1) @ np.repeat(v.astype(np.float32), group, axis=1)).astype(q.dtype)
