"""Attention with causal and window masks; position masks are cached since every layer needs the same one."""

import math

import numpy as np

_position_masks = {}


def position_mask(q_len, k_len, causal, window):
    key = (q_len, k_len, causal)
    if key not in _position_masks:
        gap = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
        allowed = np.ones((q_len, k_len), bool)
        if causal:
            allowed &= gap <= 0
        if window is not None:
            left, right = window
            allowed &= True if left is None else gap >= -left
            allowed &= True if right is None else gap <= right
        _position_masks[key] = allowed
    return _position_masks[key]


def kernel(q, k, v, *, causal=False, window=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = np.einsum("bngid,bnjd->bngij", queries, k.astype(np.float32)) * scale
    scores = np.where(position_mask(q_len, k_len, causal, window), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    out = np.einsum("bngij,bnje->bngie", weights / np.where(total > 0, total, 1), v.astype(np.float32))
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
