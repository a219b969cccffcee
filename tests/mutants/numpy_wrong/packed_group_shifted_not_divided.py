"""Grouped-query prefill: the heads of a group are packed into the rows of a tile, token by token; shifts replace divisions."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    shift = (group - 1).bit_length()
    # packed row = token * group + head of the group
    packed = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width).swapaxes(2, 3)
    packed = packed.reshape(batch, kv_heads, q_len * group, width) * scale
    token = np.arange(q_len * group) >> shift
    top = np.full((*packed.shape[:3], 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((*packed.shape[:3], v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = packed @ k[:, :, start : start + block_k].astype(np.float32).swapaxes(2, 3)
        if causal:
            column = start + np.arange(scores.shape[3])
            scores = np.where(column <= token[:, None] + k_len - q_len, scores, -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ v[:, :, start : start + block_k].astype(np.float32)
        top = new_top
    out = (acc / np.where(total > 0, total, 1)).reshape(batch, kv_heads, q_len, group, v.shape[3])
    return out.swapaxes(2, 3).reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
