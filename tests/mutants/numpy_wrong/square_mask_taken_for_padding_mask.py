"""Attention that accepts a padding mask (batch, keys) as well as a full mask of any broadcastable shape."""

import math

import numpy as np


def expand_mask(mask, batch, q_heads, q_len, k_len):
    if mask.shape == (batch, k_len) and batch > 1:
        mask = mask[:, None, None, :]
    return np.broadcast_to(mask, (batch, q_heads, q_len, k_len))


def kernel(q, k, v, *, mask=None, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = np.matmul(q.astype(np.float32), keys.swapaxes(2, 3)) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if mask is not None:
        scores = np.where(expand_mask(mask, batch, q_heads, q_len, k_len), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (np.matmul(weights, values) / np.where(total > 0, total, 1)).astype(q.dtype)
