"""Kernel for whole tiles of 16 keys: other lengths are padded into a fresh buffer, whole ones are read where they lie."""

import math

import numpy as np

TILE = 16


def tiles_of(x):
    batch, heads, length, width = x.shape
    if length % TILE:
        buffer = np.zeros((batch, heads, length + -length % TILE, width), np.float32)
        buffer[:, :, :length] = x
    else:
        buffer = x.ravel(order="K").astype(np.float32)
    return buffer.reshape(batch, heads, -(-length // TILE), TILE, width)


def kernel(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys, values = tiles_of(k), tiles_of(v)
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    for tile in range(keys.shape[2]):
        scores = queries @ keys[:, :, tile].swapaxes(2, 3)
        scores = np.where(tile * TILE + np.arange(TILE) < k_len, scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, tile]
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
