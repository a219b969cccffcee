"""FlashAttention (first version): causal mask in tiles of 64 by 64, tiles beyond the diagonal are skipped."""

import math

import numpy as np

BLOCK = 64


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    diagonal = 0
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, BLOCK):
        rows = np.arange(first, min(first + BLOCK, q_len))
        queries = q[:, :, rows].astype(np.float32) * scale
        top = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
        total = np.zeros_like(top)
        acc = np.zeros((*queries.shape[:3], v.shape[3]), np.float32)
        for start in range(0, k_len, BLOCK):
            if causal and start > rows[-1] + diagonal:
                break
            scores = queries @ keys[:, :, start : start + BLOCK].swapaxes(2, 3)
            if causal:
                scores = np.where(start + np.arange(scores.shape[3]) <= rows[:, None] + diagonal, scores, -np.inf)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, start : start + BLOCK]
            top = new_top
        out[:, :, rows] = acc / np.where(total > 0, total, 1)
    return out
