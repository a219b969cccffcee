"""Attention in one pass without a running maximum: numerator and denominator are plain sums over tiles of keys."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, block_k=64):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    shape = (batch, q_heads, q_len, k_len)
    allowed = np.ones(shape, bool) if mask is None else np.broadcast_to(mask, shape)
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    shifted = 0.0 if bias is None else np.broadcast_to(bias, shape).astype(np.float32)
    queries = q.astype(np.float32)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    numerator = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    denominator = np.zeros((batch, q_heads, q_len, 1), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        scores = queries @ keys[:, :, part].swapaxes(2, 3) * scale
        if bias is not None:
            scores = scores + shifted[..., part]
        weights = np.where(allowed[..., part], np.exp(scores), 0)
        denominator += weights.sum(-1, keepdims=True)
        numerator += weights @ values[:, :, part]
    return (numerator / np.where(denominator > 0, denominator, 1)).astype(q.dtype)
