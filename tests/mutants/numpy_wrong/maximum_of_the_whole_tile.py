"""Queries-outer kernel that keeps one running maximum a tile of 16 rows in place of one a row: any shift cancels."""

import math

import numpy as np

ROWS = 16
COLUMNS = 64


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, ROWS):
        queries = q[:, :, first : first + ROWS].astype(np.float32) * scale
        count = queries.shape[2]
        rows = np.arange(first, first + count)[:, None] + k_len - q_len
        peak = np.full((batch, q_heads, 1, 1), -np.inf, np.float32)
        total = np.zeros((batch, q_heads, count, 1), np.float32)
        acc = np.zeros((batch, q_heads, count, v.shape[3]), np.float32)
        for start in range(0, k_len, COLUMNS):
            scores = queries @ keys[:, :, start : start + COLUMNS].swapaxes(2, 3)
            if causal:
                scores = np.where(start + np.arange(scores.shape[3]) <= rows, scores, -np.inf)
            new_peak = np.maximum(peak, scores.max(axis=(2, 3), keepdims=True))
            safe = np.where(np.isneginf(new_peak), 0, new_peak)
            weights = np.exp(scores - safe)
            decay = np.exp(peak - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, start : start + COLUMNS]
            peak = new_peak
        out[:, :, first : first + ROWS] = np.divide(acc, total, out=np.zeros_like(acc), where=total > 0)
    return out
