"""Attention that first drops the trailing keys nobody may attend to, as after right padding."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    group = q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k.shape[2]))
    used = np.flatnonzero(allowed.any(axis=(0, 1, 2)))
    k_len = int(used[-1]) + 1 if len(used) else 0
    allowed = allowed[..., :k_len]
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    keys = np.repeat(k[:, :, :k_len].astype(np.float32), group, axis=1)
    values = np.repeat(v[:, :, :k_len].astype(np.float32), group, axis=1)
    scores = np.where(allowed, q.astype(np.float32) @ keys.swapaxes(2, 3) * scale, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
