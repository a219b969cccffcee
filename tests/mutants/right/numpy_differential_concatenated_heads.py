"""Both maps as one softmax over a block-diagonal problem: heads of map one, then of map two, in float64."""

import numpy as np


def kernel(q1, k1, q2, k2, v, *, lam, causal=False, scale=None):
    heads, group = q1.shape[1], q1.shape[1] // k1.shape[1]
    q, k = (np.concatenate(pair, axis=1).astype(np.float64) for pair in ((q1, q2), (k1, k2)))
    k, values = np.repeat(k, group, axis=1), np.repeat(np.concatenate([v, v], axis=1), group, axis=1).astype(np.float64)
    logits = np.einsum("bhld,bhsd->bhls", q, k) * (q1.shape[3] ** -0.5 if scale is None else scale)
    if causal:
        ahead = np.arange(k.shape[2]) - np.arange(q.shape[2])[:, None] - (k.shape[2] - q.shape[2])
        logits[..., ahead > 0] = -np.inf
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp2((logits - np.where(np.isinf(largest), 0, largest)) * np.log2(np.e))
    total = weights.sum(axis=-1, keepdims=True)
    out = weights @ values / np.where(total == 0, 1, total)
    return (out[:, :heads] - lam * out[:, heads:]).astype(v.dtype)
