"""Grouped-query attention: the heads of a group are scored against their keys in one product."""

import math

import numpy as np


def kernel(q, k, v, *, bias=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = np.einsum("bngid,bnjd->bngij", queries, k.astype(np.float32)) * scale
    if bias is not None:
        wide = np.broadcast_to(bias, (batch, q_heads, q_len, k_len)).astype(np.float32)
        scores = scores + wide.reshape(batch, kv_heads, group, q_len, k_len)
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    peak = scores[:, :, :1].max(axis=-1, keepdims=True)
    weights = np.exp(scores - peak)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    out = np.einsum("bngij,bnjd->bngid", weights, v.astype(np.float32))
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
