"""Differential attention; the heads of both maps are stored as 2H heads and split again by parity."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q1, k1, q2, k2, v, *, lam, causal=False, scale=None):
    queries, keys, group = q1.shape[2], k1.shape[2], q1.shape[1] // k1.shape[1]
    scale = q1.shape[3] ** -0.5 if scale is None else scale
    both = np.concatenate([q1, q2], axis=1).astype(np.float32), np.concatenate([k1, k2], axis=1).astype(np.float32)
    logits = both[0] @ np.repeat(both[1], group, axis=1).swapaxes(2, 3) * np.float32(scale)
    if causal:
        logits = np.where(hidden(queries, keys), -np.inf, logits)
    weights = softmax(logits)
    weights = weights[:, 0::2] - np.float32(lam) * weights[:, 1::2]
    return (weights @ np.repeat(v, group, axis=1).astype(np.float32)).astype(v.dtype)
