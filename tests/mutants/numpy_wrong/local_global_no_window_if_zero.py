"""Longformer attention under a mask; without a window it falls back to full attention."""

import numpy as np


def visible(length, window, global_tokens):
    if not window:
        return np.ones((length, length), dtype=bool)
    distance = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    mask = distance <= window
    for token in global_tokens:
        mask[token] = mask[:, token] = True
    return mask


def kernel(q, k, v, *, window, global_tokens, causal=False, scale=None):
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    mask = visible(length, window, global_tokens)
    if causal:
        mask = np.tril(mask)
    scale = np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    out = np.empty((*q.shape[:3], v.shape[-1]), q.dtype)
    for head in range(q.shape[1]):
        scores = np.where(mask, q[:, head] @ k[:, head // group].swapaxes(1, 2) * scale, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-1e30))
        out[:, head] = weights / weights.sum(axis=-1, keepdims=True) @ v[:, head // group]
    return out
