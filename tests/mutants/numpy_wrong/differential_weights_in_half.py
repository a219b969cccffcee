"""Differential attention; the two maps of weights are kept in float16 until they are subtracted."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q1, k1, q2, k2, v, *, lam, v2=None, causal=False, scale=None):
    group = q1.shape[1] // k1.shape[1]
    scale = np.float32(q1.shape[3] ** -0.5 if scale is None else scale)
    maps = []
    for q, k in ((q1, k1), (q2, k2)):
        logits = q @ np.repeat(k, group, axis=1).swapaxes(2, 3) * scale
        if causal:
            logits = np.where(hidden(q.shape[2], k.shape[2]), -np.inf, logits)
        maps.append(softmax(logits).astype(np.float16))
    first, second = maps[0].astype(np.float32), maps[1].astype(np.float32)
    return first @ np.repeat(v, group, axis=1) - np.float32(lam) * second @ np.repeat(v if v2 is None else v2, group, axis=1)
