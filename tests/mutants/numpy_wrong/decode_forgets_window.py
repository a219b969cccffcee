"""Attention with a prefill path in tiles and a decode path for a single query, which sees the whole cache."""

import math

import numpy as np


def decode(q, k, v, scale):
    scores = np.einsum("bhd,bhjd->bhj", q[:, :, 0], k) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhj,bhje->bhe", weights / weights.sum(-1, keepdims=True), v)[:, :, None]


def prefill(q, k, v, scale, causal, window):
    q_len, k_len = q.shape[2], k.shape[2]
    left, right = (None, None) if window is None else window
    gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    allowed = gap <= 0 if causal else np.ones(gap.shape, bool)
    if left is not None:
        allowed = allowed & (gap >= -left)
    if right is not None:
        allowed = allowed & (gap <= right)
    scores = np.where(allowed, q @ k.swapaxes(2, 3) * scale, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return weights @ v / np.where(total > 0, total, 1)


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    queries = q.astype(np.float32)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    # the only query is the last one, so that causality hides nothing from it
    if q.shape[2] == 1 and k.shape[2] > 0:
        return decode(queries, keys, values, scale).astype(q.dtype)
    return prefill(queries, keys, values, scale, causal, window).astype(q.dtype)
