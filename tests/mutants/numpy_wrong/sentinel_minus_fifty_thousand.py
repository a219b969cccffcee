"""Prefill kernel in the FlashInfer manner: scores that may not take part become a large negative number, so that no infinities arise."""

import math

import numpy as np

NEGATIVE = np.float32(-5e4)


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    queries = q.astype(np.float32) * scale
    allowed = np.ones((batch, q_heads, q_len, k_len), bool)
    if mask is not None:
        allowed &= mask
    if causal:
        allowed &= np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len
    top = np.full((batch, q_heads, q_len, 1), NEGATIVE, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        scores = np.where(allowed[..., part], queries @ keys[:, :, part].swapaxes(2, 3), NEGATIVE)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights = np.where(allowed[..., part], np.exp(scores - new_top), 0)
        decay = np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, part]
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
