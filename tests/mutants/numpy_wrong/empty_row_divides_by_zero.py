"""Plain attention with boolean masks and a sliding window, one head of keys at a time."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, window=None, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    allowed = np.ones((batch, q_heads, q_len, k_len), bool) if mask is None else np.broadcast_to(mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & (gap <= 0)
    if window is not None:
        left, right = window
        if left is not None:
            allowed = allowed & (gap >= -left)
        if right is not None:
            allowed = allowed & (gap <= right)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    if k_len == 0:
        return out
    for n in range(kv_heads):
        heads = slice(n * group, (n + 1) * group)
        scores = q[:, heads].astype(np.float32) @ k[:, n, None].astype(np.float32).swapaxes(-1, -2) * scale
        if softcap is not None:
            scores = np.tanh(scores / softcap) * softcap
        scores = np.where(allowed[:, heads], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, heads] = (weights / weights.sum(-1, keepdims=True)) @ v[:, n, None].astype(np.float32)
    return out
