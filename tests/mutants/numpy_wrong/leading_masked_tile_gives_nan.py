"""Memory-efficient attention: online softmax over chunks of keys, boolean mask applied chunk by chunk."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None, block_k=16):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    has_keys = allowed.any(-1, keepdims=True)
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    row_max = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        chunk = slice(start, start + block_k)
        scores = np.where(allowed[..., chunk], queries @ keys[:, :, chunk].swapaxes(2, 3), -np.inf)
        new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
        # rows without any key never raise their maximum
        shift = np.where(has_keys, new_max, 0)
        weights = np.exp(scores - shift)
        decay = np.exp(row_max - shift)
        row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, chunk]
        row_max = new_max
    return (acc / np.where(has_keys, row_sum, 1)).astype(q.dtype)
