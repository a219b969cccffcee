"""Attention for matrix units: logits and sums stay in float32, the weights are stored in half precision for the second product."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    queries = q.astype(np.float32) * scale
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        keys = np.repeat(k[:, :, part].astype(np.float32), group, axis=1)
        values = np.repeat(v[:, :, part].astype(np.float32), group, axis=1)
        scores = np.where(allowed[..., part], queries @ keys.swapaxes(2, 3), -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights = np.exp(scores - safe)
        decay = np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights.astype(np.float16).astype(np.float32) @ values
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
