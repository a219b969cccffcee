"""Latent attention, absorbed; the cache of a batch is one matrix."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    width = q_nope.shape[3] + q_rope.shape[3]
    scale = np.float32(width**-0.5 if scale is None else scale)
    absorbed = q_nope @ w_uk.swapaxes(1, 2)
    logits = (absorbed @ c_kv[:, None].swapaxes(2, 3) + q_rope @ k_rope[:1, None].swapaxes(2, 3)) * scale
    if causal:
        logits = np.where(hidden(q_nope.shape[2], c_kv.shape[1]), -np.inf, logits)
    return (softmax(logits) @ c_kv[:, None]) @ w_uv
