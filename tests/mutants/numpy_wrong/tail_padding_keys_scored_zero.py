"""Decode kernel in the paged style: keys are gathered into pages of 16 and scored page by page."""

import math

import numpy as np

PAGE = 16


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    padded = -(-k_len // PAGE) * PAGE
    keys = np.zeros((batch, kv_heads, padded, width), np.float32)
    values = np.zeros((batch, kv_heads, padded, v.shape[3]), np.float32)
    keys[:, :, :k_len] = k
    values[:, :, :k_len] = v
    # the heads of a group are stacked along the rows, so that each page of keys is read once
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    last_key = np.tile(np.arange(q_len), group)[:, None] + k_len - q_len

    row_max = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((*queries.shape[:3], v.shape[3]), np.float32)
    for start in range(0, padded, PAGE):
        columns = np.arange(start, start + PAGE)
        scores = queries @ keys[:, :, start : start + PAGE].swapaxes(-1, -2)
        if causal:
            scores = np.where((columns <= last_key) & (columns < k_len), scores, -np.inf)
        new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
        shift = np.where(np.isneginf(new_max), 0, new_max)
        weights = np.exp(scores - shift)
        rescale = np.exp(row_max - shift)
        row_sum = row_sum * rescale + weights.sum(-1, keepdims=True)
        acc = acc * rescale + weights @ values[:, :, start : start + PAGE]
        row_max = new_max
    out = acc / np.where(row_sum == 0, 1, row_sum)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
