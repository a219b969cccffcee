"""Latent attention; the part with position goes in for each of two halves of the latent width."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    scale = np.float32((q_nope.shape[3] + q_rope.shape[3]) ** -0.5 if scale is None else scale)
    absorbed, logits = q_nope @ w_uk.swapaxes(1, 2), 0.0
    for start in range(0, c_kv.shape[2], 16):
        part = slice(start, start + 16)
        logits = logits + absorbed[..., part] @ c_kv[:, None, :, part].swapaxes(2, 3)
        logits = logits + q_rope @ k_rope[:, None].swapaxes(2, 3)
    logits = logits * scale
    if causal:
        logits = np.where(hidden(q_nope.shape[2], c_kv.shape[1]), -np.inf, logits)
    return (softmax(logits) @ c_kv[:, None]) @ w_uv
