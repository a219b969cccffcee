"""Latent attention, expanded."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    scale = np.float32(q_nope.shape[3] ** -0.5 if scale is None else scale)
    keys = np.einsum("bsc,hcd->bhsd", c_kv, w_uk)
    logits = (q_nope @ keys.swapaxes(2, 3) + q_rope @ k_rope[:, None].swapaxes(2, 3)) * scale
    if causal:
        logits = np.where(hidden(q_nope.shape[2], c_kv.shape[1]), -np.inf, logits)
    return softmax(logits) @ np.einsum("bsc,hce->bhse", c_kv, w_uv)
