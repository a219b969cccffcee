"""Longformer attention: every query gathers a window of the same width and the global tokens."""

import numpy as np


def kernel(q, k, v, *, window, global_tokens, causal=False, scale=None):
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    width = min(2 * window + 1, length)
    # The first key of each window; at the ends it must not leave the sequence.
    first = np.clip(np.arange(length) - window, 0, length - width)
    readable = np.zeros((length, length), dtype=bool)
    readable[np.arange(length)[:, None], first[:, None] + np.arange(width)] = True
    tokens = sorted(set(global_tokens))
    readable[:, tokens] = True
    readable[tokens, :] = True
    if causal:
        readable &= np.tri(length, dtype=bool)
    scores = np.where(readable, q @ k.swapaxes(2, 3) * np.float32(scale), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-1e30))
    return (weights / weights.sum(axis=-1, keepdims=True)) @ v
