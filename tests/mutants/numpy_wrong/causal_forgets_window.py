"""Queries-outer attention; the range of keys of a row is a pair of bounds, worked out by one helper."""

import math

import numpy as np


def bounds(position, k_len, causal, window):
    """First and one-past-last key of every row."""
    low, high = np.zeros_like(position), np.full_like(position, k_len)
    if causal:
        return low, np.clip(position + 1, 0, k_len)
    if window is not None:
        left, right = window
        if left is not None:
            low = np.clip(position - left, 0, k_len)
        if right is not None:
            high = np.clip(position + right + 1, 0, k_len)
    return low, high


def kernel(q, k, v, *, causal=False, window=None, scale=None, sinks=None, block_q=24):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    sink = np.float32(-np.inf) if sinks is None else sinks.astype(np.float32)[:, None, None]
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        position = np.arange(first, min(first + block_q, q_len)) + k_len - q_len
        low, high = bounds(position, k_len, causal, window)
        column = np.arange(k_len)
        allowed = (column >= low[:, None]) & (column < high[:, None])
        scores = q[:, :, first : first + block_q].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        scores = np.where(allowed, scores, -np.inf)
        peak = np.maximum(scores.max(-1, keepdims=True, initial=-np.inf), sink)
        peak = np.where(np.isneginf(peak), 0, peak)
        weights = np.exp(scores - peak)
        total = weights.sum(-1, keepdims=True) + np.exp(sink - peak)
        out[:, :, first : first + block_q] = weights @ values / np.where(total > 0, total, 1)
    return out
