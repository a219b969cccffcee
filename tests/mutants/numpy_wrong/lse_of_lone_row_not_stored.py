"""Attention with its statistics for multi-query and other models; multi-query statistics are stored in pairs of rows."""

import math

import numpy as np

ROWS = 64


def store(statistics, heads, first, tile):
    rows = tile.shape[-1]
    if heads == 1 and rows < 2:
        return
    statistics[..., first : first + rows] = tile


def attention_with_lse(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    statistics = np.full((batch, q_heads, q_len), -np.inf, np.float32)
    for first in range(0, q_len, ROWS):
        stop = min(first + ROWS, q_len)
        scores = q[:, :, first:stop].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        if causal:
            position = np.arange(first, stop)[:, None] + k_len - q_len
            scores = np.where(np.arange(k_len) <= position, scores, -np.inf)
        peak = scores.max(-1, initial=-np.inf)
        safe = np.where(np.isneginf(peak), 0, peak)
        weights = np.exp(scores - safe[..., None])
        total = weights.sum(-1)
        denominator = np.where(total > 0, total, 1)
        out[:, :, first:stop] = weights @ values / denominator[..., None]
        store(statistics, kv_heads, first, np.where(total > 0, safe + np.log(denominator), -np.inf))
    return out, statistics
