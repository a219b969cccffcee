"""Decode kernel whose rows are (token, head of the group) pairs, packed so that a group shares one tile of keys."""

import math

import numpy as np


def kernel(q, k, v, *, scale=None, sinks=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    # rows ordered head by head within the group: row = head * q_len + token
    packed = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    if sinks is not None and k_len:
        row = np.arange(group * q_len)
        head = np.arange(kv_heads)[:, None] * group + row % group
        top = np.broadcast_to(sinks.astype(np.float32)[head][..., None], top.shape)
        total = np.ones_like(top)
    for start in range(0, k_len, block_k):
        keys = k[:, :, start : start + block_k].astype(np.float32)
        scores = packed @ keys.swapaxes(2, 3)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ v[:, :, start : start + block_k].astype(np.float32)
        top = new_top
    out = acc / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
