"""Plain attention that scales the queries, which are fewer than the logits."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    queries = np.asarray(q, dtype=np.float32)
    if not queries.flags.writeable:
        queries = queries.copy()
    queries *= 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & np.tri(q_len, k_len, k_len - q_len, dtype=bool)
    scores = np.where(allowed, queries @ keys.swapaxes(2, 3), -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
