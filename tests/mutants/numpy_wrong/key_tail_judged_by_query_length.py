"""FlashAttention-2 loop with a fast path for lengths that fill their tiles: no bounds mask is built there."""

import math

import numpy as np

BLOCK = 16


def padded(x):
    room = -x.shape[2] % BLOCK
    return np.pad(x.astype(np.float32), ((0, 0), (0, 0), (0, room), (0, 0)))


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    value_width = v.shape[3]
    scale = 1 / math.sqrt(width) if scale is None else scale
    even = q_len % BLOCK == 0
    queries, keys, values = padded(q), padded(k), padded(v)
    owner = np.arange(q_heads) // (q_heads // kv_heads)
    keys, values = keys[:, owner], values[:, owner]
    out = np.zeros((batch, q_heads, queries.shape[2], value_width), np.float32)

    for first in range(0, queries.shape[2], BLOCK):
        q_tile = queries[:, :, first : first + BLOCK] * scale
        position = np.arange(first, first + BLOCK)[:, None] + k_len - q_len
        peak = np.full((batch, q_heads, BLOCK), -np.inf, np.float32)
        denominator = np.zeros((batch, q_heads, BLOCK), np.float32)
        acc = np.zeros((batch, q_heads, BLOCK, value_width), np.float32)
        for start in range(0, keys.shape[2], BLOCK):
            scores = np.einsum("bhid,bhjd->bhij", q_tile, keys[:, :, start : start + BLOCK])
            column = np.arange(start, start + BLOCK)
            if not even:
                scores = np.where(column < k_len, scores, -np.inf)
            if causal:
                scores = np.where(column <= position, scores, -np.inf)
            new_peak = np.maximum(peak, scores.max(axis=-1))
            safe = np.where(np.isinf(new_peak), 0, new_peak)
            weights = np.exp(scores - safe[..., None])
            alpha = np.exp(peak - safe)
            denominator = denominator * alpha + weights.sum(axis=-1)
            acc = acc * alpha[..., None] + np.einsum("bhij,bhjd->bhid", weights, values[:, :, start : start + BLOCK])
            peak = new_peak
        out[:, :, first : first + BLOCK] = acc / np.maximum(denominator, np.finfo(np.float32).tiny)[..., None]
    return out[:, :, :q_len].astype(q.dtype)
