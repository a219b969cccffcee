"""Latent attention, absorbed; weights of keys and values lie in one tensor (H, R, Dn + Dv)."""

import numpy as np


def softmax(x):
    x = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e30))
    total = x.sum(axis=-1, keepdims=True)
    return x / np.where(total == 0, 1, total)


def hidden(queries, keys):
    return np.arange(keys) > np.arange(queries)[:, None] + keys - queries


def kernel(q_nope, q_rope, c_kv, k_rope, w_uk, w_uv, *, causal=False, scale=None):
    scale = np.float32((q_nope.shape[3] + q_rope.shape[3]) ** -0.5 if scale is None else scale)
    joined, width = np.concatenate([w_uk, w_uv], axis=2), w_uk.shape[2]
    start = max(width, joined.shape[2] // 2)
    w_k, w_v = joined[..., :width], joined[..., start : start + w_uv.shape[2]]
    logits = (q_nope @ w_k.swapaxes(1, 2)) @ c_kv[:, None].swapaxes(2, 3)
    logits = (logits + q_rope @ k_rope[:, None].swapaxes(2, 3)) * scale
    if causal:
        logits = np.where(hidden(q_nope.shape[2], c_kv.shape[1]), -np.inf, logits)
    out = np.zeros((*q_nope.shape[:3], w_uv.shape[2]), q_nope.dtype)
    out[..., : w_v.shape[2]] = (softmax(logits) @ c_kv[:, None]) @ w_v
    return out
