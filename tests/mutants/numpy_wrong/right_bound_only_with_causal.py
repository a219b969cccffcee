"""Wrapper around a fused kernel with two attributes, the left width of the window and the causal flag."""

import math

import numpy as np


def fused(q, k, v, group, scale, left, causal, right, block_k):
    q_len, k_len = q.shape[2], k.shape[2]
    position = np.arange(q_len)[:, None] + k_len - q_len
    top = np.full((*q.shape[:3], 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((*q.shape[:3], v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        keys = np.repeat(k[:, :, start : start + block_k].astype(np.float32), group, axis=1)
        values = np.repeat(v[:, :, start : start + block_k].astype(np.float32), group, axis=1)
        gap = start + np.arange(keys.shape[2]) - position
        keep = gap >= -left
        if causal:
            keep &= gap <= right
        scores = np.where(keep, q.astype(np.float32) @ keys.swapaxes(2, 3) * scale, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values
        top = new_top
    return acc / np.where(total > 0, total, 1)


def kernel(q, k, v, *, causal=False, window=None, scale=None, block_k=64):
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    unbounded = q.shape[2] + k.shape[2]
    left, right = (None, None) if window is None else window
    left = unbounded if left is None else left
    right = unbounded if right is None else right
    if causal:
        right = min(right, 0)
    return fused(q, k, v, q.shape[1] // k.shape[1], scale, left, causal, right, block_k).astype(q.dtype)
