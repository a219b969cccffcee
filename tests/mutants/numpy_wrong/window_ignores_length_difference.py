"""Attention with causal and window masks built apart and combined."""

import math

import numpy as np


def causal_mask(q_len, k_len):
    return np.tri(q_len, k_len, k_len - q_len, dtype=bool)


def window_mask(q_len, k_len, left, right):
    distance = np.subtract.outer(np.arange(q_len), np.arange(k_len))
    keep = np.ones((q_len, k_len), bool)
    if left is not None:
        keep &= distance <= left
    if right is not None:
        keep &= distance >= -right
    return keep


def kernel(q, k, v, *, causal=False, window=None, softcap=None, scale=None):
    q_heads, q_len, width = q.shape[1:]
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.ones((q_len, k_len), bool)
    if causal:
        allowed &= causal_mask(q_len, k_len)
    if window is not None:
        allowed &= window_mask(q_len, k_len, *window)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    scores = np.where(allowed, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
