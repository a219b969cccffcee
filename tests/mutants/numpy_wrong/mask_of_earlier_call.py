"""Prefill wrapper with a plan: the mask is prepared when it is first seen and kept for the layers that follow."""

import math

import numpy as np

_plan = {}


def prepare(mask, shape):
    if mask is not None:
        _plan[shape] = np.array(np.broadcast_to(mask, shape))
    return _plan.get(shape)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = prepare(mask, (batch, q_heads, q_len, k_len))
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    if causal:
        scores = np.where(np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
