"""K is transposed once into contiguous storage with the scale already in it; the queries stay as they came."""

import numpy as np


def _scaled_transpose(k, scale):
    batch, kv_heads, k_len, width = k.shape
    stored = np.empty((batch, kv_heads, width, k_len), dtype=np.float32)
    np.multiply(k.transpose(0, 1, 3, 2), np.float32(scale), out=stored, dtype=np.float32)
    return stored


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    keys = _scaled_transpose(k.astype(np.float32), width**-0.5 if scale is None else scale)
    values = np.ascontiguousarray(v, dtype=np.float32)
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    visible = None if mask is None else np.broadcast_to(mask, (batch, heads, q_len, k_len))
    if k_len == 0:
        return out
    for head in range(heads):
        source = head // (heads // kv_heads)
        logits = q[:, head].astype(np.float32) @ keys[:, source]
        if causal:
            logits[..., np.arange(k_len) > np.arange(q_len)[:, None] + k_len - q_len] = -np.inf
        if visible is not None:
            logits[~visible[:, head]] = -np.inf
        highest = logits.max(axis=-1, keepdims=True)
        highest[np.isneginf(highest)] = 0
        np.subtract(logits, highest, out=logits)
        np.exp(logits, out=logits)
        total = logits.sum(axis=-1, keepdims=True)
        total[total == 0] = 1
        out[:, head] = logits @ values[:, source] / total
    return out
