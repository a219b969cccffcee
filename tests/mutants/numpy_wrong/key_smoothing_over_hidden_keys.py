"""Masked attention with smoothed keys: the mean key is subtracted from every key, which shifts all logits of a row alike."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & np.tri(q_len, k_len, k_len - q_len, dtype=bool)
    raw = k.astype(np.float32)
    keys = np.repeat(raw - raw.mean(axis=2, keepdims=True), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = np.where(allowed, q.astype(np.float32) @ keys.swapaxes(2, 3) * scale, -np.inf)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
