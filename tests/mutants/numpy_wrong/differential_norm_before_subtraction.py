"""Differential attention with a norm of every head."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def unit(x, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))


def kernel(q1, k1, q2, k2, v, *, lam, causal=False, scale=None, lam_init=None, eps=1e-5):
    group = q1.shape[1] // k1.shape[1]
    scale = np.float32(q1.shape[3] ** -0.5 if scale is None else scale)
    values, results = np.repeat(v, group, axis=1).astype(np.float32), []
    for q, k in ((q1, k1), (q2, k2)):
        logits = q.astype(np.float32) @ np.repeat(k, group, axis=1).astype(np.float32).swapaxes(2, 3) * scale
        if causal:
            logits = np.where(hidden(q.shape[2], k.shape[2]), -np.inf, logits)
        results.append(softmax(logits) @ values)
    if lam_init is None:
        return (results[0] - np.float32(lam) * results[1]).astype(v.dtype)
    first, second = (unit(x, eps) for x in results)
    return ((first - np.float32(lam) * second) * np.float32(1 - lam_init)).astype(v.dtype)
