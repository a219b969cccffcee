"""Attention over a fixed-size cache: the softmax runs over all slots, the mask then clears the weights of unused ones."""

import math

import numpy as np


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    weights = softmax(q.astype(np.float32) @ keys.swapaxes(2, 3) * scale)
    if mask is not None:
        weights = np.where(mask, weights, 0)
    if causal:
        weights = np.where(np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len, weights, 0)
    return (weights @ values).astype(q.dtype)
