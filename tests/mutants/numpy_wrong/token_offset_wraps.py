"""Extend kernel on tokens: queries lie as (tokens, heads, width), and a tile of them begins at token * heads * width."""

import math

import numpy as np

TILE = 16


def kernel(q, k, v, *, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    tokens = q.astype(np.float32).transpose(0, 2, 1, 3).reshape(-1)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, heads, q_len, v.shape[3]), q.dtype)
    for sequence in range(batch):
        for start in range(0, q_len, TILE):
            stop = min(start + TILE, q_len)
            offset = int(np.array((sequence * q_len + start) * heads * width).astype(np.uint16))
            tile = tokens[offset : offset + (stop - start) * heads * width].reshape(stop - start, heads, width)
            scores = tile.transpose(1, 0, 2) @ keys[sequence].swapaxes(1, 2) * scale
            if causal:
                position = np.arange(start, stop)[:, None] + k_len - q_len
                scores = np.where(np.arange(k_len) <= position, scores, -np.inf)
            top = scores.max(-1, keepdims=True, initial=-np.inf)
            weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
            total = weights.sum(-1, keepdims=True)
            out[sequence, :, start:stop] = weights @ values[sequence] / np.where(total > 0, total, 1)
    return out
