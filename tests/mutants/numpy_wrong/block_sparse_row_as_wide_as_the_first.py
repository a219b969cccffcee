"""Block-sparse attention from a table of blocks, as many columns as the mask has blocks in a row."""

import numpy as np


def kernel(q, k, v, *, block_mask, block_q, block_k, scale=None):
    batch, heads, queries, width = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    scale = np.float32(width**-0.5 if scale is None else scale)
    mask = np.broadcast_to(block_mask, (batch, heads, *block_mask.shape[2:]))
    out = np.zeros((batch, heads, queries, v.shape[-1]), q.dtype)
    for b, h in np.ndindex(batch, heads):
        if mask.shape[2] == 0:
            continue
        columns = max(int(mask[b, h, 0].sum()), 1)
        order = np.argsort(~mask[b, h], axis=-1, kind="stable")[:, :columns]  # allowed blocks first
        for row, blocks in enumerate(order):
            rows = slice(row * block_q, min((row + 1) * block_q, queries))
            chosen = blocks[mask[b, h, row, blocks]]
            tokens = (chosen[:, None] * block_k + np.arange(block_k)).ravel()
            tokens = tokens[tokens < keys]
            if tokens.size == 0:
                continue
            scores = q[b, h, rows] @ k[b, h // group, tokens].T * scale
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            out[b, h, rows] = weights @ v[b, h // group, tokens] / weights.sum(axis=-1, keepdims=True)
    return out
