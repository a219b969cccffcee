"""Memory-efficient attention with a bias read through a flat pointer: the offset of a tile's first row plus the place in the tile."""

import math

import numpy as np

ROWS = 32


def kernel(q, k, v, *, bias=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    if bias is not None:
        bias = np.broadcast_to(bias, (batch, q_heads, q_len, k_len)).reshape(batch, q_heads, q_len * k_len)
    for first in range(0, q_len, ROWS):
        stop = min(first + ROWS, q_len)
        scores = q[:, :, first:stop].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        if bias is not None:
            begin = np.array(first * k_len).astype(np.uint16)
            tile = bias[..., int(begin) : int(begin) + (stop - first) * k_len]
            scores = scores + tile.reshape(batch, q_heads, stop - first, k_len).astype(np.float32)
        if causal:
            position = np.arange(first, stop)[:, None] + k_len - q_len
            scores = np.where(np.arange(k_len) <= position, scores, -np.inf)
        peak = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
        total = weights.sum(-1, keepdims=True)
        out[:, :, first:stop] = weights @ values / np.where(total > 0, total, 1)
    return out
