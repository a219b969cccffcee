"""Attention with sinks as one more column of logits, which the softmax sees and the values do not."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, softcap=None, scale=None, sinks=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if sinks is not None:
        column = np.broadcast_to(sinks.astype(np.float32)[:, None, None], (batch, q_heads, q_len, 1))
        scores = np.concatenate([scores, column], axis=-1)
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if causal:
        visible = np.ones((q_len, scores.shape[-1]), bool)
        visible[:, :k_len] = np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len
        scores = np.where(visible, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    weights = weights / np.where(total > 0, total, 1)
    return (weights[..., :k_len] @ values).astype(q.dtype)
