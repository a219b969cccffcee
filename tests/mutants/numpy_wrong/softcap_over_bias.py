"""Attention with soft-capped logits and position biases (ALiBi and the like)."""

import numpy as np


def logits(q, k, bias, softcap, scale):
    scores = np.einsum("bhid,bhjd->bhij", q, k) * scale
    if bias is not None:
        scores = scores + bias.astype(np.float32)
    if softcap is not None:
        scores = np.tanh(scores * (1.0 / softcap)) * softcap
    return scores


def kernel(q, k, v, *, bias=None, causal=False, softcap=None, scale=None, sinks=None):
    q_heads, q_len, width = q.shape[1:]
    kv_heads, k_len = k.shape[1], k.shape[2]
    owner = np.arange(q_heads) // (q_heads // kv_heads)
    keys, values = k.astype(np.float32)[:, owner], v.astype(np.float32)[:, owner]
    scores = logits(q.astype(np.float32), keys, bias, softcap, width**-0.5 if scale is None else scale)
    if causal:
        scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    sink = np.float32(-np.inf) if sinks is None else sinks.astype(np.float32)[:, None, None]
    peak = np.maximum(peak, sink)
    peak = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True) + np.exp(sink - peak)
    return np.einsum("bhij,bhje->bhie", weights / np.where(total > 0, total, 1), values).astype(q.dtype)
