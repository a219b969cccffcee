"""Grouped-query attention in one einsum; query heads are split into (group member, key head) or (key head, group member)."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = np.einsum("bngid,bnjd->bngij", queries, k.astype(np.float32)) * scale
    if mask is not None:
        heads = np.broadcast_to(mask, (batch, q_heads, q_len, k_len)).reshape(batch, group, kv_heads, q_len, k_len)
        scores = np.where(heads.swapaxes(1, 2), scores, -np.inf)
    if causal:
        scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    out = np.einsum("bngij,bnje->bngie", weights / np.where(total > 0, total, 1), v.astype(np.float32))
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
