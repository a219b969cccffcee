"""CPU kernel in the manner of llama.cpp: a tile of 64 keys is scored at once, its padding is -inf from the start."""

import math

import numpy as np

TILE = 64


def kernel(q, k, v, *, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    peak = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(peak)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    tile = np.empty((batch, kv_heads, group * q_len, TILE), np.float32)
    for start in range(0, k_len, TILE):
        count = min(TILE, k_len - start)
        tile[..., :count] = queries @ k[:, :, start : start + count].astype(np.float32).swapaxes(2, 3)
        tile[..., count:] = -np.inf
        scores = tile if softcap is None else softcap * np.tanh(tile / softcap)
        new_peak = np.maximum(peak, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_peak), np.exp(peak - new_peak)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights[..., :count] @ v[:, :, start : start + count].astype(np.float32)
        peak = new_peak
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
