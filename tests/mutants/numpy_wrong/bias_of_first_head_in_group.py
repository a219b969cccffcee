"""Grouped-query attention with a bias; logits live in (batch, key head, group, query, key)."""

import math

import numpy as np


def grouped(x, batch, kv_heads, group, q_len, k_len):
    """A view of x, which broadcasts to (batch, heads, query, key), with its heads divided into groups."""
    return np.broadcast_to(x, (batch, kv_heads * group, q_len, k_len)).reshape(batch, kv_heads, group, q_len, k_len)


def kernel(q, k, v, *, bias=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = queries @ k[:, :, None].astype(np.float32).swapaxes(-1, -2) * scale
    if bias is not None:
        scores = scores + grouped(bias, batch, kv_heads, group, q_len, k_len)[:, :, :1].astype(np.float32)
    if causal:
        scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    out = weights @ v[:, :, None].astype(np.float32) / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
