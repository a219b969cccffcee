"""Prefill kernel that adds a position bias to the raw products and scales afterwards, in base two throughout."""

import math

import numpy as np

LOG2E = 1.4426950408889634


def kernel(q, k, v, *, bias=None, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    factor = (1.0 / math.sqrt(width) if scale is None else scale) * LOG2E
    if bias is not None:
        bias = np.broadcast_to(bias, (batch, q_heads, q_len, k_len)).astype(np.float32)
    queries = q.astype(np.float32)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        scores = queries @ keys[:, :, part].swapaxes(2, 3)
        if bias is not None:
            scores = scores + bias[..., part]
        scores = scores * factor
        if causal:
            visible = start + np.arange(scores.shape[3]) <= np.arange(q_len)[:, None] + k_len - q_len
            scores = np.where(visible, scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp2(scores - safe), np.exp2(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, part]
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
