"""Sliding-window attention in one pass over tiles of keys, FlashAttention-2 order."""

import math

import numpy as np


def inside(rows, columns, left, right):
    gap = rows[:, None] - columns
    keep = np.ones(gap.shape, bool)
    if left is not None:
        keep &= (gap < left) | (gap <= 0)
    if right is not None:
        keep &= gap >= -right
    return keep


def kernel(q, k, v, *, causal=False, window=None, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    rows = np.tile(np.arange(q_len), group) + k_len - q_len
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        columns = np.arange(start, min(start + block_k, k_len))
        scores = queries @ k[:, :, columns].astype(np.float32).swapaxes(2, 3)
        scores = np.where(inside(rows, columns, left, right), scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ v[:, :, columns].astype(np.float32)
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
