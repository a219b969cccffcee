"""Packed sequences of several lengths: one softmax for each pair of offsets, which a mask of padding may narrow down."""

import math

import numpy as np


def offsets_of(mask):
    """Where the documents of a (L, L) mask begin, and the total; None if it is no set of documents side by side."""
    starts = mask.argmax(axis=1)
    if not np.array_equal(mask, starts[:, None] == starts[None, :]) or (np.diff(starts) < 0).any():
        return None
    return [*np.unique(starts).tolist(), len(mask)]


def softmax_attention(q, k, v, allowed, scale):
    scores = np.where(allowed, q @ k.T * scale, -np.inf)
    peak = scores.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(axis=1, keepdims=True)
    return weights @ v / np.where(total > 0, total, 1)


def by_offsets(q, k, v, offsets, attention_mask, causal, scale):
    if attention_mask.all():
        offsets = [0, len(attention_mask)]
    out = np.zeros((len(q), v.shape[1]), np.float32)
    for start, stop in zip(offsets, offsets[1:], strict=False):
        part = slice(start, stop)
        allowed = np.tri(stop - start, dtype=bool) if causal else np.ones((stop - start,) * 2, bool)
        out[part] = softmax_attention(q[part], k[part], v[part], allowed & attention_mask[part], scale)
    return out


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    full = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    band = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.bool_(True)
    for b in range(batch):
        for h in range(q_heads):
            arrays = [part.astype(np.float32) for part in (q[b, h], k[b, h // group], v[b, h // group])]
            offsets = offsets_of(full[b, h]) if q_len == k_len > 0 else None
            if offsets is None:
                out[b, h] = softmax_attention(*arrays, full[b, h] & band, scale)
            else:
                out[b, h] = by_offsets(*arrays, offsets, full[b, h].any(axis=0), causal, scale)
    return out
