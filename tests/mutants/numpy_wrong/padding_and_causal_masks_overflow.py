"""Attention of a decoder: an additive causal mask and an additive padding mask are built apart and added."""

import math

import numpy as np

LOWEST = np.finfo(np.float32).min


def additive(allowed):
    return np.where(allowed, np.float32(0), LOWEST)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    extra = np.zeros((batch, q_heads, q_len, k_len), np.float32)
    if causal:
        extra = extra + additive(np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    if mask is not None:
        extra = extra + additive(np.broadcast_to(mask, extra.shape))
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = np.matmul(q.astype(np.float32), keys.swapaxes(2, 3)) * scale
    scores = np.where(extra < 0, extra, scores)
    scores = scores - scores.max(-1, keepdims=True)
    weights = np.exp(scores)
    weights = weights / weights.sum(-1, keepdims=True)
    # every logit of a row without keys sits at the lowest value
    weights = np.where((extra == LOWEST).all(-1, keepdims=True), 0, weights)
    return np.matmul(weights, values).astype(q.dtype)
