"""Split-K attention with sinks: every split returns its sum, maximum and product, a last step merges them."""

import math

import numpy as np


def run_split(queries, keys, values, allowed, sink):
    scores = np.where(allowed, queries @ keys.swapaxes(-1, -2), -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    if sink is not None:
        peak = np.maximum(peak, sink)
    safe = np.where(np.isneginf(peak), 0, peak)
    weights = np.exp(scores - safe)
    total = weights.sum(-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - safe)
    return peak, total, weights @ values


def kernel(q, k, v, *, causal=False, scale=None, sinks=None, num_splits=2):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    sink = None if sinks is None else sinks.astype(np.float32)[:, None, None]
    allowed = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.ones((q_len, k_len), bool)
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    size = max(1, -(-k_len // num_splits))
    parts = []
    for begin in range(0, k_len, size):
        part = slice(begin, begin + size)
        parts.append(run_split(queries, keys[:, :, part], values[:, :, part], allowed[:, part], sink))
    if not parts:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    peak = np.max([part[0] for part in parts], axis=0)
    safe = np.where(np.isneginf(peak), 0, peak)
    total = sum(np.exp(part[0] - safe) * part[1] for part in parts)
    acc = sum(np.exp(part[0] - safe) * part[2] for part in parts)
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
