"""Causal FlashAttention: tiles below the diagonal run without a mask, tiles on the diagonal with one."""

import math

import numpy as np

BLOCK_Q = 16
BLOCK_K = 32


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    offset = k_len - q_len
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for head in range(q_heads):
        keys, values = k[:, head // group].astype(np.float32), v[:, head // group].astype(np.float32)
        for first in range(0, q_len, BLOCK_Q):
            last = min(first + BLOCK_Q, q_len) - 1
            queries = q[:, head, first : last + 1].astype(np.float32) * scale
            rows = np.arange(first, last + 1)[:, None] + offset
            row_max = np.full((batch, last + 1 - first, 1), -np.inf, np.float32)
            row_sum = np.zeros_like(row_max)
            acc = np.zeros((batch, last + 1 - first, v.shape[3]), np.float32)
            for start in range(0, k_len, BLOCK_K):
                if causal and start > last + offset:
                    break
                stop = min(start + BLOCK_K, k_len)
                scores = np.matmul(queries, keys[:, start:stop].transpose(0, 2, 1))
                crosses_diagonal = stop - 1 > last + offset
                if causal and crosses_diagonal:
                    scores = np.where(np.arange(start, stop) <= rows, scores, -np.inf)
                new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
                safe = np.where(np.isneginf(new_max), 0, new_max)
                weights = np.exp(scores - safe)
                decay = np.exp(row_max - safe)
                row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
                acc = acc * decay + np.matmul(weights, values[:, start:stop])
                row_max = new_max
            out[:, head, first : last + 1] = acc / np.where(row_sum > 0, row_sum, 1)
    return out
