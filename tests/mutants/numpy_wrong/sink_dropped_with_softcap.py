"""Attention with two score paths, a plain one that knows sinks and a generic one for soft-capped logits."""

import math

import numpy as np


def finish(scores, values, sink=None):
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    if sink is not None:
        peak = np.maximum(peak, sink)
    peak = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - peak)
    return weights @ values / np.where(total > 0, total, 1)


def kernel(q, k, v, *, mask=None, softcap=None, scale=None, sinks=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    sink = None if sinks is None else sinks.astype(np.float32).reshape(q_heads, 1, 1)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if softcap is not None:
        scores = np.where(allowed, softcap * np.tanh(scores / softcap), -np.inf)
        return finish(scores, values).astype(q.dtype)
    return finish(np.where(allowed, scores, -np.inf), values, sink).astype(q.dtype)
