"""Latent attention, absorbed, over tiles of 32 rows of the cache."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, scale=None):
    scale = np.float32((q_nope.shape[3] + q_rope.shape[3]) ** -0.5 if scale is None else scale)
    queries = np.concatenate([q_nope @ w_uk.swapaxes(1, 2), q_rope], axis=3) * scale
    cache = np.concatenate([c_kv, k_rope], axis=2)[:, None]
    largest = np.full((*q_nope.shape[:3], 1), -np.inf, np.float32)
    total, gathered = np.zeros_like(largest), np.zeros((*q_nope.shape[:3], c_kv.shape[2]), np.float32)
    for start in range(0, c_kv.shape[1], 32):
        logits = queries @ cache[:, :, start : start + 32].swapaxes(2, 3)
        new = np.maximum(largest, logits.max(axis=-1, keepdims=True))
        weights, kept = np.exp(logits - new), np.exp(largest - new)
        total = total * kept + weights.sum(axis=-1, keepdims=True)
        gathered = gathered * np.where(start == 32, 1, kept) + weights @ c_kv[:, None, start : start + 32]
        largest = new
    return (gathered / np.where(total == 0, 1, total)) @ w_uv
