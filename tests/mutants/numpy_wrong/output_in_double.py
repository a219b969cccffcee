"""Plain attention computed in float64 for accuracy."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None):
    q_heads, q_len, width = q.shape[1:]
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(np.asarray(k, np.float64), group, axis=1)
    values = np.repeat(np.asarray(v, np.float64), group, axis=1)
    scores = np.asarray(q, np.float64) @ keys.swapaxes(2, 3) * scale
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    if causal:
        scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return weights @ values / np.where(total > 0, total, 1)
