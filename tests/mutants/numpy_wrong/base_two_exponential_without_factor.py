"""FlashAttention-2 in base two: exp2 is the exponential that the hardware offers, so the logits are kept in base two."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    scale_base_two = scale
    queries = q.astype(np.float32) * scale_base_two
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = queries @ keys[:, :, start : start + block_k].swapaxes(2, 3)
        if causal:
            column = start + np.arange(scores.shape[-1])
            scores = np.where(column <= np.arange(q_len)[:, None] + k_len - q_len, scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights = np.exp2(scores - safe)
        decay = np.exp2(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, start : start + block_k]
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
