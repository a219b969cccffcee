"""Differential attention; each map masks itself."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def attend(q, k, v, scale, mask):
    logits = q @ k.swapaxes(2, 3) * scale
    return softmax(logits if mask is None else np.where(mask, -np.inf, logits)) @ v


def kernel(q1, k1, q2, k2, v, *, lam, causal=False, scale=None):
    group, queries, keys = q1.shape[1] // k1.shape[1], q1.shape[2], k1.shape[2]
    scale = np.float32(q1.shape[3] ** -0.5 if scale is None else scale)
    k1, k2, v = (np.repeat(x, group, axis=1) for x in (k1, k2, v))
    first = attend(q1, k1, v, scale, hidden(queries, keys) if causal else None)
    second = attend(q2, k2, v, scale, ~np.tri(queries, keys, dtype=bool) if causal else None)
    return first - np.float32(lam) * second
