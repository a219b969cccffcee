"""Persistent scheduler: a work item is one integer that packs sequence, tile of rows and head."""

import math

import numpy as np

ROWS = 64
HEAD_BITS = 3
HEAD_MASK = (1 << HEAD_BITS) - 1


def work_items(batch, q_heads, tiles):
    for b in range(batch):
        for tile in range(tiles):
            for head in range(q_heads):
                yield ((b * tiles + tile) << HEAD_BITS) | (head & HEAD_MASK)


def kernel(q, k, v, *, softcap=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    group = q_heads // k.shape[1]
    tiles = -(-q_len // ROWS)
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    if k.shape[2] == 0:
        return out
    for item in work_items(batch, q_heads, tiles):
        head, place = item & HEAD_MASK, item >> HEAD_BITS
        b, tile = divmod(place, tiles)
        rows = slice(tile * ROWS, (tile + 1) * ROWS)
        scores = q[b, head, rows].astype(np.float32) @ k[b, head // group].astype(np.float32).T * scale
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[b, head, rows] = weights @ v[b, head // group].astype(np.float32) / weights.sum(1, keepdims=True)
    return out
