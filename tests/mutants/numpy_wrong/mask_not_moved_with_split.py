"""Split-K attention: every split sees its own keys, values and columns of the mask."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, scale=None, num_splits=1):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    allowed = allowed.reshape(batch, kv_heads, group * q_len, k_len)
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width) * scale
    size = max(-(-k_len // num_splits), 1)
    tops, totals, parts = [], [], []
    for begin in range(0, k_len, size):
        keys = k[:, :, begin : begin + size].astype(np.float32)
        values = v[:, :, begin : begin + size].astype(np.float32)
        scores = queries @ keys.swapaxes(2, 3)
        scores = np.where(allowed[..., : keys.shape[2]], scores, -np.inf)
        top = scores.max(-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
        tops.append(top)
        totals.append(weights.sum(-1, keepdims=True))
        parts.append(weights @ values)
    out = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    if tops:
        top = np.max(tops, axis=0)
        shares = [np.exp(local - np.where(np.isneginf(top), 0, top)) for local in tops]
        total = sum(share * local for share, local in zip(shares, totals))
        out = sum(share * local for share, local in zip(shares, parts)) / np.where(total > 0, total, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
