"""Attention of a latent-cache model: queries and keys may be wider than the values."""

import numpy as np


def softmax(scores):
    peak = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    q_heads, q_len = q.shape[1:3]
    kv_heads, k_len, head_width = v.shape[1:]
    scale = head_width**-0.5 if scale is None else scale
    keys = np.repeat(k, q_heads // kv_heads, axis=1).astype(np.float32)
    values = np.repeat(v, q_heads // kv_heads, axis=1).astype(np.float32)
    scores = np.einsum("bhid,bhjd->bhij", q.astype(np.float32), keys) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    if causal:
        future = np.arange(k_len) > np.arange(q_len)[:, None] + (k_len - q_len)
        scores = np.where(future, -np.inf, scores)
    return np.einsum("bhij,bhje->bhie", softmax(scores), values).astype(q.dtype)
