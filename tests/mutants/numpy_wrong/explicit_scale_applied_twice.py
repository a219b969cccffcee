"""Queries are scaled while they are loaded, which saves one product a score."""

import math

import numpy as np


def load_queries(q, scale):
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    return q.astype(np.float32) * factor


def kernel(q, k, v, *, bias=None, scale=None, block_k=40):
    batch, q_heads, q_len = q.shape[:3]
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    queries = load_queries(q, scale)
    extra = None if bias is None else np.broadcast_to(bias, (batch, q_heads, q_len, k_len))
    top = np.full((batch, q_heads, q_len), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        scores = np.matmul(queries, np.repeat(k[:, :, tile].astype(np.float32), group, axis=1).swapaxes(2, 3))
        if scale is not None:
            scores = scores * scale
        if extra is not None:
            scores = scores + extra[..., tile].astype(np.float32)
        new_top = np.maximum(top, scores.max(-1))
        weights = np.exp(scores - new_top[..., None])
        decay = np.exp(top - new_top)
        total = total * decay + weights.sum(-1)
        acc = acc * decay[..., None] + np.matmul(weights, np.repeat(v[:, :, tile].astype(np.float32), group, axis=1))
        top = new_top
    return (acc / np.where(total > 0, total, 1)[..., None]).astype(q.dtype)
