"""Causal attention for a cache that already holds some keys: the offset is the number of keys before the first query."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    cached = max(k_len - q_len, 0)
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + cached)
    queries = q.astype(np.float32) * scale
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        keys = np.repeat(k[:, :, part].astype(np.float32), group, axis=1)
        scores = np.where(allowed[..., part], queries @ keys.swapaxes(2, 3), -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ np.repeat(v[:, :, part].astype(np.float32), group, axis=1)
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
