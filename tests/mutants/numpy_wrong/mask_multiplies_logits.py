"""Attention with the mask as a factor on the logits, so that one fused multiply handles scale and mask."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    factor = np.broadcast_to(np.float32(scale) if mask is None else np.where(mask, np.float32(scale), 0), (batch, q_heads, q_len, k_len))
    queries = q.astype(np.float32)
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        keys = np.repeat(k[:, :, part].astype(np.float32), group, axis=1)
        values = np.repeat(v[:, :, part].astype(np.float32), group, axis=1)
        scores = queries @ keys.swapaxes(2, 3) * factor[..., part]
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
