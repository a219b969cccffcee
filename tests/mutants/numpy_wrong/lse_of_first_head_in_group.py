"""Decode kernel with packed groups: statistics are stored by the lane that owns the first row of a group."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width) * scale
    top = np.full((batch, kv_heads, group, q_len), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = queries @ k[:, :, None, start : start + block_k].astype(np.float32).swapaxes(-1, -2)
        new_top = np.maximum(top, scores.max(-1))
        weights, decay = np.exp(scores - new_top[..., None]), np.exp(top - new_top)
        total = total * decay + weights.sum(-1)
        acc = acc * decay[..., None] + weights @ v[:, :, None, start : start + block_k].astype(np.float32)
        top = new_top
    statistics = np.full((batch, kv_heads, group, q_len), -np.inf, np.float32)
    if k_len:
        statistics[:, :, :1] = (top + np.log(total))[:, :, :1]
    out = acc / np.where(total > 0, total, 1)[..., None]
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype), statistics.reshape(batch, q_heads, q_len)
