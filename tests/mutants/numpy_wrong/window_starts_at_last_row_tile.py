"""FlashAttention-2 with a sliding window: only the tiles of keys between the two edges of the window are visited."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, window=None, scale=None, block_q=32, block_k=16):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    offset = k_len - q_len
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    keys, values = k.astype(np.float32), v.astype(np.float32)
    for first in range(0, q_len, block_q):
        last = min(first + block_q, q_len) - 1
        count = last - first + 1
        queries = q[:, :, first : last + 1].astype(np.float32) * scale
        queries = queries.reshape(batch, kv_heads, group, count, width)
        k_begin = 0 if left is None else max(0, last + offset - left) // block_k * block_k
        k_end = k_len if right is None else max(0, min(k_len, last + offset + right + 1))
        gap = np.arange(k_len) - (np.arange(first, last + 1)[:, None] + offset)
        row_max = np.full((batch, kv_heads, group, count, 1), -np.inf, np.float32)
        row_sum = np.zeros_like(row_max)
        acc = np.zeros((batch, kv_heads, group, count, v.shape[3]), np.float32)
        for start in range(k_begin, k_end, block_k):
            part = slice(start, min(start + block_k, k_end))
            scores = queries @ keys[:, :, None, part].swapaxes(-1, -2)
            if left is not None:
                scores = np.where(gap[:, part] >= -left, scores, -np.inf)
            if right is not None:
                scores = np.where(gap[:, part] <= right, scores, -np.inf)
            new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_max), 0, new_max)
            weights = np.exp(scores - safe)
            decay = np.exp(row_max - safe)
            row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, None, part]
            row_max = new_max
        tile = acc / np.where(row_sum > 0, row_sum, 1)
        out[:, :, first : last + 1] = tile.reshape(batch, q_heads, count, v.shape[3])
    return out
