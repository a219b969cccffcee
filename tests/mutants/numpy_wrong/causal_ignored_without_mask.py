"""Encoder-decoder attention: causality is folded into the mask, and the masked path runs when there is a mask."""

import math

import numpy as np


def fold_causal(mask, shape):
    q_len, k_len = shape[-2:]
    return np.broadcast_to(mask, shape) & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = (queries @ k[:, :, None].astype(np.float32).swapaxes(-1, -2) * scale).reshape(batch, q_heads, q_len, k_len)
    if mask is not None:
        if causal:
            mask = fold_causal(mask, scores.shape)
        scores = np.where(mask, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    weights = (weights / np.where(total > 0, total, 1)).reshape(batch, kv_heads, group, q_len, k_len)
    return (weights @ v[:, :, None].astype(np.float32)).reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
