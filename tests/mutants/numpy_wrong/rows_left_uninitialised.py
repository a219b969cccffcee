"""Attention that gathers the rows with at least one visible key and computes those only."""

import math

import numpy as np


def visible_rows(allowed):
    return np.nonzero(allowed.any(axis=-1))


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    rows = visible_rows(allowed)
    scores = q.astype(np.float32) @ np.repeat(k.astype(np.float32), group, axis=1).swapaxes(2, 3) * scale
    scores = np.where(allowed, scores, -np.inf)[rows]
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    weights = weights / weights.sum(-1, keepdims=True)
    full = np.zeros((batch, q_heads, q_len, k_len), np.float32)
    full[rows] = weights
    values = np.repeat(v.astype(np.float32), group, axis=1)
    results = (full @ values)[rows].astype(q.dtype)
    del values
    out = np.empty((batch, q_heads, q_len, v.shape[3]), q.dtype)
    out[rows] = results
    return out
