"""Inputs are widened to float64 at once and everything is accumulated there; only the output is rounded back."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None, block_k=50):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    hidden = np.zeros(full, dtype=bool) if mask is None else ~np.broadcast_to(mask, full)
    gap = np.arange(q_len)[:, None] + (k_len - q_len) - np.arange(k_len)
    left, right = window or (None, None)
    if causal:
        hidden |= gap < 0
    if left is not None:
        hidden |= gap > left
    if right is not None:
        hidden |= gap < -right
    bias = None if bias is None else np.broadcast_to(bias, full)

    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float64)
    for head in range(heads):
        queries = q[:, head].astype(np.float64) * scale
        start_at = -np.inf if sinks is None else float(sinks[head])
        highest = np.full((batch, q_len, 1), start_at)
        total = np.full((batch, q_len, 1), 0.0 if np.isneginf(start_at) else 1.0)
        for start in range(0, k_len, block_k):
            tile = slice(start, start + block_k)
            logits = queries @ k[:, head // group, tile].astype(np.float64).swapaxes(1, 2)
            if softcap is not None:
                logits = softcap * np.tanh(logits / softcap)
            if bias is not None:
                logits += bias[:, head, :, tile].astype(np.float64)
            logits[hidden[:, head, :, tile]] = -np.inf
            new_highest = np.maximum(highest, logits.max(axis=-1, keepdims=True))
            shift = np.where(np.isneginf(new_highest), 0, new_highest)
            weights = np.exp(logits - shift)
            rescale = np.exp(highest - shift)
            out[:, head] = out[:, head] * rescale + weights @ v[:, head // group, tile].astype(np.float64)
            total = total * rescale + weights.sum(axis=-1, keepdims=True)
            highest = new_highest
        out[:, head] /= np.where(total == 0, 1, total)
    return out.astype(q.dtype)
