"""Attention with a decode path for a single query, which drops the query axis to use matrix-vector products."""

import math

import numpy as np


def softmax(scores):
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


def kernel(q, k, v, *, scale=None):
    q_heads, q_len, width = q.shape[1:]
    group = q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    if q_len == 1:
        query = q.squeeze().astype(np.float32)
        weights = softmax(np.matmul(keys, query[..., None])[..., 0] * scale)
        return np.matmul(weights[..., None, :], values).astype(q.dtype)
    return (softmax(q.astype(np.float32) @ keys.swapaxes(2, 3) * scale) @ values).astype(q.dtype)
