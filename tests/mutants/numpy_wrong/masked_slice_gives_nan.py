"""Softmax in two levels: each slice of 32 keys gets its own maximum and sum, the slices are then combined."""

import math

import numpy as np

SLICE = 32


def kernel(q, k, v, *, mask=None, window=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if window is not None:
        left = k_len + q_len if window[0] is None else window[0]
        right = k_len + q_len if window[1] is None else window[1]
        allowed = allowed & (gap >= -left) & (gap <= right)
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)

    maxima, sums, parts = [], [], []
    for start in range(0, k_len, SLICE):
        stop = min(start + SLICE, k_len)
        scores = np.where(allowed[..., start:stop], queries @ keys[:, :, start:stop].swapaxes(2, 3), -np.inf)
        peak = scores.max(-1, keepdims=True)
        weights = np.exp(scores - peak)
        maxima.append(peak)
        sums.append(weights.sum(-1, keepdims=True))
        parts.append(weights @ values[:, :, start:stop])
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    if maxima:
        top = np.max(maxima, axis=0)
        shares = [np.exp(peak - np.where(np.isneginf(top), 0, top)) for peak in maxima]
        total = sum(share * part for share, part in zip(shares, sums))
        out = sum(share * part for share, part in zip(shares, parts)) / np.where(total == 0, 1, total)
        out = np.where(allowed.any(-1, keepdims=True), out, 0)
    return out.astype(q.dtype)
