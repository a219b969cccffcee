"""Tree-decoding kernel: with causal on, tiles below the diagonal take a path without element masks."""

import math

import numpy as np

BLOCK_Q = 16
BLOCK_K = 16


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    offset = k_len - q_len
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, BLOCK_Q):
        rows = slice(first, min(first + BLOCK_Q, q_len))
        queries = q[:, :, rows].astype(np.float32) * scale
        top = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
        total = np.zeros_like(top)
        acc = np.zeros((*queries.shape[:3], v.shape[3]), np.float32)
        for start in range(0, k_len, BLOCK_K):
            columns = slice(start, min(start + BLOCK_K, k_len))
            if causal and start > rows.stop - 1 + offset:
                break
            scores = queries @ keys[:, :, columns].swapaxes(2, 3)
            below_diagonal = causal and columns.stop - 1 <= first + offset
            if not below_diagonal:
                tile = allowed[:, :, rows, columns]
                if causal:
                    tile = tile & (np.arange(start, columns.stop) <= np.arange(first, rows.stop)[:, None] + offset)
                scores = np.where(tile, scores, -np.inf)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, columns]
            top = new_top
        out[:, :, rows] = acc / np.where(total > 0, total, 1)
    return out
