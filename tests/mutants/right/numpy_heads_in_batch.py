"""Batch and heads are folded into one axis; a flat index array says which key head each folded query head reads."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = k.shape[1], k.shape[2], v.shape[3]
    scale = width**-0.5 if scale is None else float(scale)
    folded = np.arange(batch * heads)
    source = folded // heads * kv_heads + folded % heads // (heads // kv_heads)
    queries = q.astype(np.float32).reshape(batch * heads, q_len, width)
    keys = k.astype(np.float32).reshape(batch * kv_heads, k_len, width)
    values = v.astype(np.float32).reshape(batch * kv_heads, k_len, value_width)
    logits = np.matmul(queries, keys[source].transpose(0, 2, 1)) * scale
    if bias is not None:
        bias = np.broadcast_to(bias, (batch, heads, q_len, k_len))
        logits = logits + bias.reshape(batch * heads, q_len, k_len).astype(np.float32)
    if causal:
        logits = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), logits, -np.inf)
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, heads, q_len, k_len))
        logits = np.where(mask.reshape(batch * heads, q_len, k_len), logits, -np.inf)
    if sinks is None:
        sink = np.full((batch * heads, 1, 1), -np.inf, dtype=np.float32)
    else:
        sink = np.tile(np.asarray(sinks, dtype=np.float32), batch).reshape(batch * heads, 1, 1)
    highest = np.maximum(logits.max(axis=-1, keepdims=True, initial=-np.inf), sink)
    highest = np.where(np.isneginf(highest), 0, highest)
    weights = np.exp(logits - highest)
    total = weights.sum(axis=-1, keepdims=True) + np.exp(sink - highest)
    out = weights @ values[source] / np.where(total == 0, 1, total)
    return out.reshape(batch, heads, q_len, value_width).astype(q.dtype)
