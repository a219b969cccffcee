"""Split-K attention with the logarithm of the denominator: splits are merged one after another."""

import math

import numpy as np


def one_split(queries, keys, values):
    scores = queries @ keys.swapaxes(-1, -2)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True)
    return weights @ values / total, peak + np.log(total)


def attention_with_lse(q, k, v, *, scale=None, num_splits=1):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    merged = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    lse = merged
    size = max(1, math.ceil(k_len / num_splits))
    for begin in range(0, k_len, size):
        part, lse = one_split(queries, keys[:, :, begin : begin + size], values[:, :, begin : begin + size])
        both = np.logaddexp(merged, lse)
        out = out * np.exp(merged - both) + part * np.exp(lse - both)
        merged = both
    return out.astype(q.dtype), lse[..., 0]
