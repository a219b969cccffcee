"""Grouped-query attention for an exported graph: key heads are expanded to query heads, then plain attention follows."""

import math

import numpy as np


def expand_heads(x, q_heads):
    return np.tile(x.astype(np.float32), (1, q_heads // x.shape[1], 1, 1))


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len = k.shape[2]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys, values = expand_heads(k, q_heads), expand_heads(v, q_heads)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.astype(np.float32)
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    scores = np.where(allowed, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
