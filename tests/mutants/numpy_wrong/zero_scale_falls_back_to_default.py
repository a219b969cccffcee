"""One-pass attention with a sliding window, written key tile by key tile."""

import math

import numpy as np

TILE = 50


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = scale or 1.0 / math.sqrt(width)
    left, right = window or (None, None)
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width) * scale
    top = np.full((batch, kv_heads, group, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), np.float32)
    position = np.arange(q_len)[:, None] + k_len - q_len
    for start in range(0, k_len, TILE):
        keys = k[:, :, None, start : start + TILE].astype(np.float32)
        values = v[:, :, None, start : start + TILE].astype(np.float32)
        gap = start + np.arange(keys.shape[3]) - position
        inside = np.ones(gap.shape, bool)
        if causal:
            inside &= gap <= 0
        if left is not None:
            inside &= gap >= -left
        if right is not None:
            inside &= gap <= right
        scores = np.where(inside, queries @ keys.swapaxes(-1, -2), -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
