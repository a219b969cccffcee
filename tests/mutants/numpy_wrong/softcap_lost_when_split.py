"""Flash-decoding with two paths: one split runs directly, several splits run apart and are merged."""

import math
from itertools import pairwise

import numpy as np


def partial(queries, keys, values, softcap=None):
    scores = queries @ keys.swapaxes(-1, -2)
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - peak)
    return peak, weights.sum(-1, keepdims=True), weights @ values


def kernel(q, k, v, *, softcap=None, scale=None, num_splits=1):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    queries = q.astype(np.float32) * (1.0 / math.sqrt(width) if scale is None else scale)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    if num_splits == 1:
        _, total, acc = partial(queries, keys, values, softcap)
        return (acc / total).astype(q.dtype)
    edges = np.linspace(0, k_len, min(num_splits, k_len) + 1).astype(int)
    parts = [partial(queries, keys[:, :, a:b], values[:, :, a:b]) for a, b in pairwise(edges)]
    peak = np.max([part[0] for part in parts], axis=0)
    total = sum(np.exp(part[0] - peak) * part[1] for part in parts)
    return (sum(np.exp(part[0] - peak) * part[2] for part in parts) / total).astype(q.dtype)
