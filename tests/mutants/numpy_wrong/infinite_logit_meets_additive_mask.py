"""Plain attention: the boolean mask becomes an additive one of 0 and minus infinity."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    additive = np.zeros((batch, q_heads, q_len, k_len), np.float32)
    if mask is not None:
        additive = np.where(mask, additive, -np.inf)
    if causal:
        additive = np.where(np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len, additive, -np.inf)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = (q.astype(np.float32) * np.float32(scale)) @ keys.swapaxes(2, 3) + additive
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total == 0, 1, total)).astype(q.dtype)
