"""Attention for half precision inputs with a split path: the merge of the splits runs in float32."""

import math

import numpy as np


def partial(queries, keys, values):
    scores = queries @ keys.swapaxes(2, 3)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - peak)
    return peak, weights.sum(-1, keepdims=True), weights @ values


def kernel(q, k, v, *, scale=None, num_splits=1):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    if num_splits == 1:
        _, total, acc = partial(queries, keys, values)
        return (acc / total).astype(q.dtype)
    parts = []
    for keys_part, values_part in zip(np.array_split(keys, num_splits, axis=2), np.array_split(values, num_splits, axis=2)):
        if keys_part.shape[2]:
            parts.append(partial(queries, keys_part, values_part))
    peak = np.max([part[0] for part in parts], axis=0)
    total = sum(np.exp(part[0] - peak) * part[1] for part in parts)
    return sum(np.exp(part[0] - peak) * part[2] for part in parts) / total
