"""Block-sparse attention through a full mask, head by head."""

import numpy as np


def softmax_rows(scores, visible):
    scores = np.where(visible, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def kernel(q, k, v, *, block_mask, block_q, block_k, scale=None):
    batch, heads, queries, dim = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    scale = np.float32(dim**-0.5 if scale is None else scale)
    out = np.zeros((batch, heads, queries, v.shape[-1]), q.dtype)
    for b in range(batch):
        for h in range(heads):
            mask = block_mask[b % block_mask.shape[0], h % block_mask.shape[1]]
            visible = np.kron(mask, np.ones((block_q, block_k), dtype=bool))[:queries, :keys]
            if keys == 0:
                continue
            scores = q[b, h].astype(np.float32) @ k[b, h // group].astype(np.float32).T * scale
            out[b, h] = softmax_rows(scores, visible) @ v[b, h // group].astype(np.float32)
    return out
