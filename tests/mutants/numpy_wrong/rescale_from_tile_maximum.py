"""FlashAttention-2 with the bookkeeping of one tile in a helper that returns its local maximum, sum and product."""

import math

import numpy as np


def one_tile(queries, keys, values, allowed):
    scores = np.where(allowed, queries @ keys.swapaxes(-1, -2), -np.inf)
    tile_max = scores.max(-1, keepdims=True)
    return scores, tile_max


def kernel(q, k, v, *, mask=None, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    owner = np.arange(q_heads) // (q_heads // kv_heads)
    keys, values = k.astype(np.float32)[:, owner], v.astype(np.float32)[:, owner]
    queries = q.astype(np.float32) * scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    running_max = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    running_sum = np.zeros_like(running_max)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        scores, tile_max = one_tile(queries, keys[:, :, part], values[:, :, part], allowed[..., part])
        new_max = np.maximum(running_max, tile_max)
        shift = np.where(np.isneginf(new_max), 0, new_max)
        weights = np.exp(scores - shift)
        correction = np.exp(running_max - np.where(np.isneginf(tile_max), shift, tile_max))
        running_sum = running_sum * correction + weights.sum(-1, keepdims=True)
        acc = acc * correction + weights @ values[:, :, part]
        running_max = new_max
    return np.where(running_sum > 0, acc / np.where(running_sum > 0, running_sum, 1), 0).astype(q.dtype)
