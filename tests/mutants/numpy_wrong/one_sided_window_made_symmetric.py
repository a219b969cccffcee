"""Attention with a local window, in two passes over the tiles of keys."""

import math

import numpy as np

TILE = 32


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    allowed = gap <= 0 if causal else np.ones(gap.shape, bool)
    if window is not None:
        left, right = window
        if left is None:
            left = q_len + k_len
        if right is None:
            right = left
        allowed = allowed & (gap >= -left) & (gap <= right)
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)

    def scores(start):
        tile = slice(start, start + TILE)
        return np.where(allowed[:, tile], queries @ keys[:, :, tile].swapaxes(2, 3), -np.inf)

    peak = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    for start in range(0, k_len, TILE):
        peak = np.maximum(peak, scores(start).max(-1, keepdims=True))
    peak = np.where(np.isneginf(peak), 0, peak)
    total = np.zeros_like(peak)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, TILE):
        weights = np.exp(scores(start) - peak)
        total += weights.sum(-1, keepdims=True)
        acc += weights @ values[:, :, start : start + TILE]
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
