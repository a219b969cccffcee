"""FlashAttention-2: queries outer, tiles of keys above the diagonal are never visited, output normalised once."""

import math

import numpy as np


def attend_tile(q_tile, keys, values, rows, k_stop, block_k, causal):
    row_max = np.full((*q_tile.shape[:-1], 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((*q_tile.shape[:-1], values.shape[-1]), np.float32)
    for start in range(0, k_stop, block_k):
        stop = min(start + block_k, k_stop)
        scores = q_tile @ keys[..., start:stop, :].swapaxes(-1, -2)
        if causal:
            scores = np.where(np.arange(start, stop) <= rows[:, None], scores, -np.inf)
        new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_max), 0, new_max)
        weights = np.exp(scores - safe)
        decay = np.exp(row_max - safe)
        row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[..., start:stop, :]
        row_max = new_max
    return acc / np.where(row_sum > 0, row_sum, 1)


def kernel(q, k, v, *, causal=False, scale=None, block_q=32, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    offset = k_len - q_len
    out = np.empty((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        stop = min(first + block_q, q_len)
        q_tile = q[:, :, first:stop].astype(np.float32) * scale
        k_stop = k_len
        if causal:
            tiles = -(-stop // block_k)
            k_stop = max(0, min(k_len, tiles * block_k))
        out[:, :, first:stop] = attend_tile(q_tile, keys, values, np.arange(first, stop) + offset, k_stop, block_k, causal)
    return out
