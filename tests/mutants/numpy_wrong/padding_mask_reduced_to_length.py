"""Attention that turns a padding mask (one row for all queries) into lengths, so that it can stop early."""

import math

import numpy as np

TILE = 32


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    column = np.arange(k_len)
    if mask is not None and (mask.ndim < 2 or mask.shape[-2] == 1):
        row = np.broadcast_to(mask, (batch, q_heads, 1, k_len))
        allowed = column < row.sum(-1, keepdims=True)
    else:
        allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    end = int((np.where(allowed, column, -1)).max(initial=-1)) + 1
    queries = q.astype(np.float32) * scale
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, end, TILE):
        part = slice(start, min(start + TILE, end))
        keys = np.repeat(k[:, :, part].astype(np.float32), group, axis=1)
        values = np.repeat(v[:, :, part].astype(np.float32), group, axis=1)
        scores = np.where(allowed[..., part], queries @ keys.swapaxes(2, 3), -np.inf)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
