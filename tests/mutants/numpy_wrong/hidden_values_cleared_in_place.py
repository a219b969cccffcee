"""Attention that clears the values nobody may read, so that garbage in unused cache slots cannot leak."""

import math

import numpy as np


def clear_unused(v, allowed, kv_heads):
    batch, q_heads, _, k_len = allowed.shape
    used = allowed.any(axis=2).reshape(batch, kv_heads, q_heads // kv_heads, k_len).any(axis=2)
    values = v if v.flags.c_contiguous and v.flags.writeable else v.copy()
    values[~used] = 0
    return values.astype(np.float32)


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    keys = np.repeat(k.astype(np.float32), q_heads // kv_heads, axis=1)
    values = clear_unused(v, allowed, kv_heads) if mask is not None else v.astype(np.float32)
    values = np.repeat(values, q_heads // kv_heads, axis=1)
    scores = np.where(allowed, q.astype(np.float32) @ keys.swapaxes(2, 3) * scale, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
