"""Flash-decoding: each split is one call of the same causal routine on its slice of the cache."""

import math

import numpy as np


def split_attention(queries, keys, values, positions, causal):
    scores = queries @ keys.swapaxes(2, 3)
    if causal:
        scores = np.where(np.arange(keys.shape[2]) <= positions, scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    safe = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - safe)
    return safe, weights.sum(-1, keepdims=True), weights @ values


def kernel(q, k, v, *, causal=False, scale=None, num_splits=1):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    positions = np.arange(q_len)[:, None] + k_len - q_len
    size = max(1, -(-k_len // num_splits))
    peak = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(peak)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for begin in range(0, k_len, size):
        part = slice(begin, begin + size)
        local_peak, local_total, local_acc = split_attention(queries, keys[:, :, part], values[:, :, part], positions, causal)
        local_peak = np.where(local_total > 0, local_peak, -np.inf)
        new_peak = np.maximum(peak, local_peak)
        safe = np.where(np.isneginf(new_peak), 0, new_peak)
        old_share, new_share = np.exp(peak - safe), np.exp(local_peak - safe)
        total = total * old_share + local_total * new_share
        acc = acc * old_share + local_acc * new_share
        peak = new_peak
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
