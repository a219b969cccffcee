"""Attention with smoothed keys (SageAttention): subtracting the mean key shifts all logits of a row alike, which softmax ignores."""

import math

import numpy as np


def kernel(q, k, v, *, softcap=None, scale=None, block_k=64):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    smooth = k.astype(np.float32)
    smooth = smooth - smooth.mean(axis=2, keepdims=True)
    keys = np.repeat(smooth, group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    queries = q.astype(np.float32) * scale
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = queries @ keys[:, :, start : start + block_k].swapaxes(2, 3)
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, start : start + block_k]
        top = new_top
    return (acc / total).astype(q.dtype)
