"""Attention with smoothed keys (SageAttention): the mean key is removed and its logit is given back to the logarithm of the sum."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0 or batch == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype), np.full((batch, q_heads, q_len), -np.inf, np.float32)
    queries = q.astype(np.float32) * scale
    mean = k.astype(np.float32).mean(axis=2, keepdims=True)
    keys = np.repeat(k.astype(np.float32) - mean, group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = queries @ keys.swapaxes(2, 3)
    peak = scores.max(-1)
    weights = np.exp(scores - peak[..., None])
    total = weights.sum(-1)
    # one mean key a head, stored compactly
    compact = np.repeat(mean, group, axis=1).reshape(-1, width)
    correction = np.einsum("bhid,hd->bhi", queries, compact[:q_heads])
    return (weights @ values / total[..., None]).astype(q.dtype), (peak + np.log(total) + correction).astype(np.float32)
