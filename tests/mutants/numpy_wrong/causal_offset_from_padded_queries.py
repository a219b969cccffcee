"""Queries are padded to whole tiles of 16 before the loop, so that every tile has the same shape."""

import math

import numpy as np

ROWS = 16


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = np.pad(q.astype(np.float32), ((0, 0), (0, 0), (0, -q_len % ROWS), (0, 0)))
    padded_len = queries.shape[2]
    out = np.zeros((batch, q_heads, padded_len, v.shape[3]), q.dtype)
    for first in range(0, padded_len, ROWS):
        for n in range(kv_heads):
            heads = slice(n * group, (n + 1) * group)
            scores = queries[:, heads, first : first + ROWS] @ k[:, n, None].astype(np.float32).swapaxes(2, 3) * scale
            if causal:
                position = np.arange(first, first + ROWS)[:, None] + k_len - padded_len
                scores = np.where(np.arange(k_len) <= position, scores, -np.inf)
            peak = scores.max(-1, keepdims=True, initial=-np.inf)
            weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
            total = weights.sum(-1, keepdims=True)
            out[:, heads, first : first + ROWS] = weights @ v[:, n, None].astype(np.float32) / np.where(total > 0, total, 1)
    return out[:, :, :q_len]
