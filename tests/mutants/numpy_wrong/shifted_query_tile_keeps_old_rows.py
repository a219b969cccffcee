"""Queries-outer kernel with tiles of exactly block_q rows: the last tile is moved back and recomputes some rows."""

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None, block_q=32, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = float(width) ** -0.5 if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for tile in range(-(-q_len // block_q)):
        first = max(min(tile * block_q, q_len - block_q), 0)
        queries = q[:, :, first : first + block_q].astype(np.float32) * scale
        count = queries.shape[2]
        positions = (tile * block_q + np.arange(count) + k_len - q_len)[:, None]
        row_max = np.full((batch, q_heads, count, 1), -np.inf, np.float32)
        row_sum = np.zeros((batch, q_heads, count, 1), np.float32)
        acc = np.zeros((batch, q_heads, count, v.shape[3]), np.float32)
        for start in range(0, k_len, block_k):
            scores = queries @ keys[:, :, start : start + block_k].swapaxes(2, 3)
            if causal:
                scores = np.where(start + np.arange(scores.shape[3]) <= positions, scores, -np.inf)
            new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
            shift = np.where(np.isneginf(new_max), 0, new_max)
            weights = np.exp(scores - shift)
            decay = np.exp(row_max - shift)
            row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, start : start + block_k]
            row_max = new_max
        out[:, :, first : first + block_q] = acc / np.where(row_sum > 0, row_sum, 1)
    return out
