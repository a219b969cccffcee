"""Everything is stored transposed: keys run down the columns of the scores, and V^T P gives the output transposed."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = np.ascontiguousarray(q.transpose(0, 1, 3, 2), dtype=np.float32)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.transpose(0, 1, 3, 2).astype(np.float32), group, axis=1)
    scores = scale * (keys @ queries)  # (B, Hq, Lk, Lq)
    if bias is not None:
        bias = np.broadcast_to(np.asarray(bias, dtype=np.float32), (batch, heads, q_len, k_len))
        scores = scores + bias.transpose(0, 1, 3, 2)
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, heads, q_len, k_len))
        scores = np.where(mask.transpose(0, 1, 3, 2), scores, -np.inf)
    key_position = np.arange(k_len)[:, None]
    query_position = np.arange(q_len)[None, :] + (k_len - q_len)
    if causal:
        scores = np.where(key_position <= query_position, scores, -np.inf)
    if window is not None:
        left, right = window
        if left is not None:
            scores = np.where(key_position < query_position - left, -np.inf, scores)
        if right is not None:
            scores = np.where(key_position > query_position + right, -np.inf, scores)

    highest = scores.max(axis=2, keepdims=True, initial=-np.inf)
    if sinks is not None:
        highest = np.maximum(highest, np.asarray(sinks, dtype=np.float32)[:, None, None])
    highest = np.where(np.isneginf(highest), 0, highest)
    weights = np.exp(scores - highest)
    total = weights.sum(axis=2, keepdims=True)
    if sinks is not None:
        total = total + np.exp(np.asarray(sinks, dtype=np.float32)[:, None, None] - highest)
    out = values @ weights / np.where(total == 0, 1, total)  # (B, Hq, Dv, Lq)
    return np.ascontiguousarray(out.transpose(0, 1, 3, 2)).astype(q.dtype)
