"""Online softmax with a loader of its own for expanded (stride-0) keys and values, which reads rows in pairs."""

import math

import numpy as np

TILE = 32


def load_rows(x, start, stop):
    count = stop - start
    if 0 in x.strides:
        # the paired load needs two rows; both end at the last row that is wanted
        pair = x[:, :, max(stop - max(count, 2), 0) : stop]
        return pair[:, :, :count].astype(np.float32)
    return x[:, :, start:stop].astype(np.float32)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32) * scale
    allowed = np.broadcast_to(True if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    row_max = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, TILE):
        stop = min(start + TILE, k_len)
        k_tile = np.repeat(load_rows(k, start, stop), group, axis=1)
        v_tile = np.repeat(load_rows(v, start, stop), group, axis=1)
        scores = np.where(allowed[..., start:stop], queries @ k_tile.swapaxes(2, 3), -np.inf)
        new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_max), 0, new_max)
        weights = np.exp(scores - safe)
        decay = np.exp(row_max - safe)
        row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ v_tile
        row_max = new_max
    return (acc / np.where(row_sum > 0, row_sum, 1)).astype(q.dtype)
