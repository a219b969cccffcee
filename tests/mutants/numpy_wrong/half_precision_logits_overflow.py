"""Plain attention for half precision inputs: scores are rounded to the storage dtype, the softmax runs in float32."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    products = (q.astype(np.float32) @ keys.swapaxes(2, 3)).astype(q.dtype)
    scores = products.astype(np.float32) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total == 0, 1, total)).astype(q.dtype)
