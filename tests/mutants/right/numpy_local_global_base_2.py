"""A window and global tokens as one additive mask, softmax in base 2."""

import numpy as np


def kernel(q, k, v, *, window, global_tokens, causal=False, scale=None):
    length, dim = q.shape[2:]
    group = q.shape[1] // k.shape[1]
    heads = np.arange(q.shape[1]) // group
    factor = np.float32((dim**-0.5 if scale is None else scale) * np.log2(np.e))
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    chosen = np.zeros(length, dtype=bool)
    chosen[list(global_tokens)] = True
    visible = (np.abs(distance) <= window) | chosen[None, :] | chosen[:, None]
    if causal:
        visible &= distance >= 0
    scores = (q.astype(np.float32) * factor) @ k[:, heads].astype(np.float32).swapaxes(-1, -2)
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp2(scores - scores.max(axis=-1, keepdims=True, initial=-1e30))
    return ((weights @ v[:, heads].astype(np.float32)) / weights.sum(axis=-1, keepdims=True)).astype(q.dtype)
