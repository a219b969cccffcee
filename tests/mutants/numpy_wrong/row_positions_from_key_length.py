"""Causal self-attention over tiles of keys; the tile of rows is the whole sequence."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width) * scale
    positions = np.arange(k_len)
    top = np.full((batch, kv_heads, group, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = queries @ k[:, :, None, start : start + block_k].astype(np.float32).swapaxes(-1, -2)
        if causal:
            scores = np.where(positions[start : start + block_k] <= positions[:, None], scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ v[:, :, None, start : start + block_k].astype(np.float32)
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
