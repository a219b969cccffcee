"""Attention with a bias; one that is the same for every key of a row cannot change the softmax and is left out."""

import math

import numpy as np


def kernel(q, k, v, *, bias=None, scale=None, sinks=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = np.einsum("bngid,bnjd->bngij", queries, k.astype(np.float32)) * scale
    scores = scores.reshape(batch, q_heads, q_len, k_len)
    if bias is not None and bias.shape[-1] > 1:
        scores = scores + bias.astype(np.float32)
    peak = scores.max(-1, keepdims=True)
    total = 0.0
    if sinks is not None:
        sink = sinks.astype(np.float32)[:, None, None]
        peak = np.maximum(peak, sink)
        total = np.exp(sink - peak)
    weights = np.exp(scores - peak)
    weights = weights / (weights.sum(-1, keepdims=True) + total)
    out = np.einsum("bngij,bnjd->bngid", weights.reshape(batch, kv_heads, group, q_len, k_len), v.astype(np.float32))
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
