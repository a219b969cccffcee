"""Queries-outer attention that reads, for each tile of rows, only the keys up to the diagonal of its last row."""

import math

import numpy as np


def softmax_rows(scores):
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=16):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    owner = np.arange(q_heads) // (q_heads // kv_heads)
    keys = k.astype(np.float32)[:, owner]
    values = v.astype(np.float32)[:, owner]
    allowed = np.ones((batch, q_heads, q_len, k_len), bool) if mask is None else np.broadcast_to(mask, (batch, q_heads, q_len, k_len))
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for first in range(0, q_len, block_q):
        stop = min(first + block_q, q_len)
        end = k_len
        if causal:
            end = max(0, min(k_len, stop - 1 + k_len - q_len))
        scores = q[:, :, first:stop].astype(np.float32) @ keys[:, :, :end].swapaxes(-1, -2) * scale
        tile_allowed = allowed[:, :, first:stop, :end]
        if causal:
            tile_allowed = tile_allowed & (np.arange(end) <= np.arange(first, stop)[:, None] + k_len - q_len)
        out[:, :, first:stop] = softmax_rows(np.where(tile_allowed, scores, -np.inf)) @ values[:, :, :end]
    return out.astype(q.dtype)
