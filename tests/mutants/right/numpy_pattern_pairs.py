"""The pattern asked about one pair at a time."""

import numpy as np


def kernel(q, k, v, *, pattern, scale=None):
    batch, heads, queries, dim = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    scale = dim**-0.5 if scale is None else scale
    out = np.zeros((batch, heads, queries, v.shape[-1]), q.dtype)
    for i in range(queries):
        chosen = [j for j in range(keys) if pattern(i, j)]
        if not chosen:
            continue
        for h in range(heads):
            scores = np.einsum("bd,bkd->bk", q[:, h, i].astype(np.float64), k[:, h // group, chosen].astype(np.float64)) * scale
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            out[:, h, i] = np.einsum("bk,bke->be", weights, v[:, h // group, chosen].astype(np.float64))
    return out
