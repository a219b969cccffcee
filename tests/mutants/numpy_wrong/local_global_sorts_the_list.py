"""Longformer attention: the global tokens are sorted, so that a row can merge them with its window."""

import numpy as np


def kernel(q, k, v, *, window, global_tokens, scale=None):
    global_tokens.sort()
    batch, heads, length, width = q.shape
    group = heads // k.shape[1]
    scale = width**-0.5 if scale is None else scale
    out = np.zeros((batch, heads, length, v.shape[-1]), q.dtype)
    tokens = np.unique(np.array(global_tokens, dtype=int))
    everything = np.arange(length)
    for row in range(length):
        low, high = max(row - window, 0), min(row + window + 1, length)
        keys = everything if row in tokens else np.concatenate([tokens[tokens < low], np.arange(low, high), tokens[tokens >= high]])
        for head in range(heads):
            scores = np.einsum("bd,bkd->bk", q[:, head, row].astype(np.float64), k[:, head // group, keys].astype(np.float64)) * scale
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            out[:, head, row] = np.einsum("bk,bke->be", weights, v[:, head // group, keys].astype(np.float64))
    return out
