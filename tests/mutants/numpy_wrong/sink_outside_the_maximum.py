"""Attention with sinks that also returns the logarithm of the denominator; the sink joins after the loop over keys."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, causal=False, scale=None, sinks=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    top = np.full((batch, q_heads, q_len), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = queries @ keys[:, :, start : start + block_k].swapaxes(2, 3)
        if causal:
            column = start + np.arange(scores.shape[3])
            scores = np.where(column <= np.arange(q_len)[:, None] + k_len - q_len, scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe[..., None]), np.exp(top - safe)
        total = total * decay + weights.sum(-1)
        acc = acc * decay[..., None] + weights @ values[:, :, start : start + block_k]
        top = new_top
    empty = np.isneginf(top)
    top = np.where(empty, 0, top)
    if sinks is not None:
        total = total + np.exp(sinks.astype(np.float32)[:, None] - top)
    total = np.where(empty, 1, total)
    out = (acc / total[..., None]).astype(q.dtype)
    return out, np.where(empty, -np.inf, top + np.log(total)).astype(np.float32)
