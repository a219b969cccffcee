"""Decode kernel that multiplies queries and keys in vectors of eight elements."""

import math

import numpy as np

VECTOR = 8


def products(queries, keys):
    """Inner products, accumulated vector by vector."""
    width = queries.shape[-1]
    vectors = max(width // VECTOR, 1)
    total = np.zeros((*queries.shape[:-1], keys.shape[-2]), np.float32)
    for part in range(vectors):
        lanes = slice(part * VECTOR, (part + 1) * VECTOR)
        total += queries[..., lanes] @ keys[..., lanes].swapaxes(-1, -2)
    return total


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = np.where(allowed, products(q.astype(np.float32), keys) * scale, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
