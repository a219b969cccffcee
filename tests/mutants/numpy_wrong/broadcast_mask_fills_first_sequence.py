"""Attention with a block list: the sequences a mask row belongs to are taken from the shape of the mask."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None, block_q=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    sequences = batch
    if mask is None:
        mask = np.ones((batch, 1, 1, 1), bool)
    else:
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        sequences = min(mask.shape[0], batch)
    for b in range(sequences):
        allowed = np.broadcast_to(mask[min(b, mask.shape[0] - 1)], (q_heads, q_len, k_len))
        keys = np.repeat(k[b].astype(np.float32), group, axis=0)
        values = np.repeat(v[b].astype(np.float32), group, axis=0)
        for first in range(0, q_len, block_q):
            rows = slice(first, first + block_q)
            scores = q[b, :, rows].astype(np.float32) @ keys.swapaxes(1, 2) * scale
            scores = np.where(allowed[:, rows], scores, -np.inf)
            peak = scores.max(-1, keepdims=True, initial=-np.inf)
            weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
            total = weights.sum(-1, keepdims=True)
            out[b, :, rows] = weights @ values / np.where(total > 0, total, 1)
    return out
