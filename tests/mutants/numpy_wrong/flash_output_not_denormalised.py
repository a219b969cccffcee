"""FlashAttention, keys outer and queries inner, with the normalised output written back after every tile of keys."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None, block_q=64, block_k=64):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), np.float32)
    row_max = np.full((batch, kv_heads, group, q_len, 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width) * scale
    for start in range(0, k_len, block_k):
        k_tile = k[:, :, None, start : start + block_k].astype(np.float32)
        v_tile = v[:, :, None, start : start + block_k].astype(np.float32)
        for first in range(0, q_len, block_q):
            rows = slice(first, min(first + block_q, q_len))
            scores = queries[..., rows, :] @ k_tile.swapaxes(-1, -2)
            if causal:
                position = np.arange(rows.start, rows.stop)[:, None] + k_len - q_len
                scores = np.where(start + np.arange(scores.shape[-1]) <= position, scores, -np.inf)
            old_max, old_sum = row_max[..., rows, :], row_sum[..., rows, :]
            new_max = np.maximum(old_max, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_max), 0, new_max)
            weights = np.exp(scores - safe)
            decay = np.exp(old_max - safe)
            new_sum = decay * old_sum + weights.sum(-1, keepdims=True)
            out[..., rows, :] = (decay * out[..., rows, :] + weights @ v_tile) / np.where(new_sum > 0, new_sum, 1)
            row_max[..., rows, :] = new_max
            row_sum[..., rows, :] = new_sum
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
