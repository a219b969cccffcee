"""Token-by-token decode for half precision caches: the running sums live in the dtype of the cache."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    scores = (
        np.einsum("bngid,bnjd->bngij", q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width), k.astype(np.float32)) * scale
    )
    if causal:
        scores = np.where(np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = np.zeros((batch, kv_heads, group, q_len, 1), q.dtype)
    acc = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), q.dtype)
    values = v.astype(np.float32)[:, :, None, None]
    for j in range(k_len):
        weight = weights[..., j : j + 1]
        total = (total + weight).astype(total.dtype)
        acc = (acc + weight * values[..., j, :]).astype(acc.dtype)
    out = acc.astype(np.float32) / np.where(total > 0, total, 1).astype(np.float32)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
