"""FlashAttention-2 in base two that also returns the logarithm of the denominator for a later merge."""

import math

import numpy as np

LOG2E = 1.4426950408889634


def attention_with_lse(q, k, v, *, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32) * (scale * LOG2E)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = queries @ keys[:, :, start : start + block_k].swapaxes(2, 3)
        if causal:
            column = start + np.arange(scores.shape[3])
            scores = np.where(column <= np.arange(q_len)[:, None] + k_len - q_len, scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp2(scores - safe), np.exp2(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, start : start + block_k]
        top = new_top
    safe_total = np.where(total > 0, total, 1)
    lse = np.where(total > 0, top + np.log2(safe_total), -np.inf)[..., 0]
    return (acc / safe_total).astype(q.dtype), lse.astype(np.float32)
