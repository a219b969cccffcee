"""Attention that lists the tiles of keys a mask needs once, before the loop, and then visits only those."""

import math

import numpy as np

TILE = 16


def needed_tiles(allowed):
    """Tiles of keys in which some row of some head may attend to something."""
    columns = allowed[:1].any(axis=(0, 1, 2))
    return [start for start in range(0, len(columns), TILE) if columns[start : start + TILE].any()]


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & np.tri(q_len, k_len, k_len - q_len, dtype=bool)
    allowed = allowed.reshape(batch, kv_heads, group * q_len, k_len)
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    for start in needed_tiles(allowed):
        part = slice(start, start + TILE)
        scores = queries @ k[:, :, part].astype(np.float32).swapaxes(2, 3)
        scores = np.where(allowed[..., part], scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ v[:, :, part].astype(np.float32)
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
