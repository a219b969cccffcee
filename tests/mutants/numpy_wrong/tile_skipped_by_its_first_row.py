"""Block-skipping attention: a tile whose mask lets nothing through is not computed."""

import math

import numpy as np


def tile_is_empty(tile):
    return not tile[..., :1, :].any()


def kernel(q, k, v, *, mask=None, scale=None, block_q=16, block_k=16):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        rows = slice(first, min(first + block_q, q_len))
        queries = q[:, :, rows].astype(np.float32) * scale
        top = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
        total = np.zeros_like(top)
        acc = np.zeros((*queries.shape[:3], v.shape[3]), np.float32)
        for start in range(0, k_len, block_k):
            columns = slice(start, start + block_k)
            tile = allowed[:, :, rows, columns]
            if tile_is_empty(tile):
                continue
            scores = np.where(tile, queries @ keys[:, :, columns].swapaxes(2, 3), -np.inf)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, columns]
            top = new_top
        out[:, :, rows] = acc / np.where(total > 0, total, 1)
    return out
