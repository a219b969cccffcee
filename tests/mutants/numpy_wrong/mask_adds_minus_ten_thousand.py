"""Attention of an encoder: the boolean mask is turned into an additive one before the softmax."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    heads_per_key = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), heads_per_key, axis=1)
    values = np.repeat(v.astype(np.float32), heads_per_key, axis=1)
    scores = np.matmul(q.astype(np.float32), keys.transpose(0, 1, 3, 2)) * scale
    if mask is not None:
        scores = scores + np.where(mask, np.float32(0), np.float32(-10000.0))
        empty = ~np.broadcast_to(mask, scores.shape).any(-1, keepdims=True)
    else:
        empty = np.zeros((batch, q_heads, q_len, 1), bool)
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    scores = scores - scores.max(-1, keepdims=True)
    weights = np.exp(scores)
    weights /= weights.sum(-1, keepdims=True)
    return np.where(empty, 0, np.matmul(weights, values)).astype(q.dtype)
