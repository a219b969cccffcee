"""Two heads a program: their queries are stacked so that one product fills the tile."""

import math

import numpy as np


def softmax(scores):
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for program in range(max(q_heads // 2, 1)):
        heads = np.arange(2 * program, min(2 * program + 2, q_heads))
        keys = k[:, heads // group].astype(np.float32)
        values = v[:, heads // group].astype(np.float32)
        scores = q[:, heads].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        if causal:
            scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
        out[:, heads] = softmax(scores) @ values
    return out
