"""Differential attention, one group of query heads after another; lam fades with the group."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q1, k1, q2, k2, v, *, lam, causal=False, scale=None):
    out = np.zeros((*q1.shape[:3], v.shape[3]), v.dtype)
    group = q1.shape[1] // k1.shape[1]
    scale = np.float32(q1.shape[3] ** -0.5 if scale is None else scale)
    for head in range(k1.shape[1]):
        own = slice(head * group, (head + 1) * group)
        parts = []
        for q, k in ((q1, k1), (q2, k2)):
            logits = q[:, own] @ k[:, head, None].swapaxes(2, 3) * scale
            if causal:
                logits = np.where(hidden(q.shape[2], k.shape[2]), -np.inf, logits)
            parts.append(softmax(logits) @ v[:, head, None])
        out[:, own] = parts[0] - np.float32(lam) * parts[1]
        lam = lam * lam
    return out
