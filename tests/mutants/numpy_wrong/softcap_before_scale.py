"""FlashAttention with the keys outer; queries stay unscaled, the scale joins the logits after the soft cap's tanh."""

import math

import numpy as np

BLOCK = 64


def kernel(q, k, v, *, causal=False, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, BLOCK):
        for n in range(kv_heads):
            heads = slice(n * group, (n + 1) * group)
            keys = k[:, n, None, start : start + BLOCK].astype(np.float32)
            values = v[:, n, None, start : start + BLOCK].astype(np.float32)
            scores = q[:, heads].astype(np.float32) @ keys.swapaxes(2, 3)
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            scores = scores * scale
            if causal:
                column = start + np.arange(scores.shape[3])
                scores = np.where(column <= np.arange(q_len)[:, None] + k_len - q_len, scores, -np.inf)
            new_top = np.maximum(top[:, heads], scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top[:, heads] - safe)
            total[:, heads] = total[:, heads] * decay + weights.sum(-1, keepdims=True)
            acc[:, heads] = acc[:, heads] * decay + weights @ values
            top[:, heads] = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
