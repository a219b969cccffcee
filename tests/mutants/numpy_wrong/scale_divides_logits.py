"""Attention layer of a training framework: logits, mask, softmax, product."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None):
    q_heads, k_len = q.shape[1], k.shape[2]
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), q_heads // k.shape[1], axis=1)
    values = np.repeat(v.astype(np.float32), q_heads // k.shape[1], axis=1)
    if k_len == 0:
        return np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    logits = np.matmul(q.astype(np.float32), keys.swapaxes(-1, -2)) / scale
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    peak = logits.max(-1, keepdims=True)
    weights = np.exp(logits - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return np.matmul(weights / np.where(total == 0, 1, total), values).astype(q.dtype)
