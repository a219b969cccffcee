"""Plain attention with -1e9 in place of the logits that are masked."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    queries = q.reshape(batch, kv_heads, group, q_len, width).astype(np.float32)
    scores = np.matmul(queries, k[:, :, None].swapaxes(-1, -2).astype(np.float32)) * scale
    scores = scores.reshape(batch, q_heads, q_len, k_len)
    hidden = np.zeros((q_len, k_len), bool)
    if causal:
        hidden = np.arange(k_len) > np.arange(q_len)[:, None] + k_len - q_len
    if mask is not None:
        hidden = hidden | ~mask
    scores = np.where(hidden, np.float32(-1e9), scores)
    peak = np.maximum(scores.max(axis=-1, keepdims=True), np.float32(-1e9))
    weights = np.exp(scores - peak)
    weights /= weights.sum(axis=-1, keepdims=True)
    weights = weights.reshape(batch, kv_heads, group, q_len, k_len)
    out = np.matmul(weights, v[:, :, None].astype(np.float32))
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
