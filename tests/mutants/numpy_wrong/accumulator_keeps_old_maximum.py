"""FlashAttention-2 with online softmax; rows of a tile of queries are vectorised over batch and heads."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None, block_q=64, block_k=64):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        stop = min(first + block_q, q_len)
        queries = q[:, :, first:stop].astype(np.float32) * scale
        row_max = np.full((batch, q_heads, stop - first, 1), -np.inf, np.float32)
        row_sum = np.zeros_like(row_max)
        acc = np.zeros((batch, q_heads, stop - first, v.shape[3]), np.float32)
        for start in range(0, k_len, block_k):
            scores = queries @ keys[:, :, start : start + block_k].swapaxes(2, 3)
            if causal:
                column = start + np.arange(scores.shape[3])
                scores = np.where(column <= np.arange(first, stop)[:, None] + k_len - q_len, scores, -np.inf)
            new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_max), 0, new_max)
            weights = np.exp(scores - safe)
            row_sum = row_sum * np.exp(row_max - safe) + weights.sum(-1, keepdims=True)
            acc = acc + weights @ values[:, :, start : start + block_k]
            row_max = new_max
        out[:, :, first:stop] = acc / np.where(row_sum > 0, row_sum, 1)
    return out
