"""Plain attention over keys padded to a multiple of eight, the vector width, with one extra logit a head for the sink."""

import math

import numpy as np

VECTOR = 8


def kernel(q, k, v, *, causal=False, scale=None, sinks=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    lanes = (k_len + VECTOR - 1) // VECTOR * VECTOR
    keys = np.zeros((batch, kv_heads, 1, lanes, width), np.float32)
    values = np.zeros((batch, kv_heads, 1, lanes, v.shape[3]), np.float32)
    keys[:, :, 0, :k_len] = k
    values[:, :, 0, :k_len] = v
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = queries @ keys.swapaxes(-1, -2) * (1.0 / math.sqrt(width) if scale is None else scale)

    column = np.arange(lanes)
    allowed = np.broadcast_to(column < lanes, (q_len, lanes))
    if causal:
        allowed = allowed & (column <= np.arange(q_len)[:, None] + k_len - q_len)
    scores = np.where(allowed, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    extra = 0.0
    if sinks is not None:
        sink = sinks.astype(np.float32).reshape(kv_heads, group, 1, 1)
        peak = np.maximum(peak, sink)
        extra = np.exp(sink - peak)
    peak = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True) + extra
    out = weights @ values / np.where(total == 0, 1, total)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
