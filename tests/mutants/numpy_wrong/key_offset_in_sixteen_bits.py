"""Decode kernel on flat caches: the address of a tile of keys is key * width, kept in a short integer."""

import math

import numpy as np

TILE = 32


def load(flat, start, stop, width):
    address = (np.arange(start, stop) * width).astype(np.int16)
    return flat[..., address[:, None].astype(np.int64) + np.arange(width)]


def kernel(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    flat_keys = k.astype(np.float32).reshape(batch, kv_heads, k_len * width)
    values = v.astype(np.float32)
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, TILE):
        stop = min(start + TILE, k_len)
        scores = queries @ load(flat_keys, start, stop, width).swapaxes(2, 3)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, start:stop]
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
