"""Attention with every option of the interface; which keys a row may see is settled in one helper."""

import math

import numpy as np


def visible(mask, causal, window, shape):
    q_len, k_len = shape[-2:]
    gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    if mask is not None:
        allowed = np.broadcast_to(mask, shape)
    elif causal:
        allowed = gap <= 0
    else:
        allowed = np.ones((q_len, k_len), bool)
    if window is not None:
        left, right = window
        if left is not None:
            allowed = allowed & (gap >= -left)
        if right is not None:
            allowed = allowed & (gap <= right)
    return allowed


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.astype(np.float32)
    scores = np.where(visible(mask, causal, window, (batch, q_heads, q_len, k_len)), scores, -np.inf)
    sink = np.float32(-np.inf) if sinks is None else sinks.astype(np.float32)[:, None, None]
    peak = np.maximum(scores.max(-1, keepdims=True, initial=-np.inf), sink)
    peak = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True) + np.exp(sink - peak)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
