"""Differential attention with a norm of every head, computed with the smallest eps that float16 would keep."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q1, k1, q2, k2, v, *, lam, causal=False, scale=None, lam_init=None, eps=1e-5):
    group, parts = q1.shape[1] // k1.shape[1], []
    scale = np.float32(q1.shape[3] ** -0.5 if scale is None else scale)
    for q, k in ((q1, k1), (q2, k2)):
        logits = q @ np.repeat(k, group, axis=1).swapaxes(2, 3) * scale
        if causal:
            logits = np.where(hidden(q.shape[2], k.shape[2]), -np.inf, logits)
        parts.append(softmax(logits) @ np.repeat(v, group, axis=1))
    out = parts[0] - np.float32(lam) * parts[1]
    if lam_init is None:
        return out
    root = np.sqrt(np.mean(out * out, axis=-1, keepdims=True) + np.float32(max(eps, 6e-5)))
    return out / root * np.float32(1 - lam_init)
