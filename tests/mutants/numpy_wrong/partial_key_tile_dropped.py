"""Two passes over tiles of 24 keys: the first finds the maximum of each row, the second sums weights and values."""

import math

import numpy as np

TILE = 24


def kernel(q, k, v, *, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    keys = k.astype(np.float32)[:, :, None]
    values = v.astype(np.float32)[:, :, None]
    tiles = max(k_len // TILE, min(k_len, 1))

    def logits(tile):
        scores = queries @ keys[..., tile * TILE : (tile + 1) * TILE, :].swapaxes(-1, -2) * scale
        return scores if softcap is None else softcap * np.tanh(scores / softcap)

    peak = np.full((batch, kv_heads, group, q_len, 1), -np.inf, np.float32)
    for tile in range(tiles):
        peak = np.maximum(peak, logits(tile).max(-1, keepdims=True))
    total = np.zeros_like(peak)
    acc = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), np.float32)
    for tile in range(tiles):
        weights = np.exp(logits(tile) - peak)
        total += weights.sum(-1, keepdims=True)
        acc += weights @ values[..., tile * TILE : (tile + 1) * TILE, :]
    out = acc / np.where(total == 0, 1, total)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
