"""Grouped heads through five-dimensional einsums with uncommon letters; the head axis is split and joined by reshape only."""

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = 1.0 / np.sqrt(width) if scale is None else scale
    # z batch, y key head, x query head within its group, w query, u key, t width, r value width
    split = q.reshape(batch, kv_heads, group, q_len, width).astype(np.float32)
    scores = np.einsum("zyxwt,zyut->wzuyx", split, k.astype(np.float32), optimize=True) * np.float32(scale)
    if softcap is not None:
        scores = np.float32(softcap) * np.tanh(scores / np.float32(softcap))
    allowed = np.ones((batch, heads, q_len, k_len), dtype=bool)
    if mask is not None:
        allowed &= mask
    if causal:
        allowed &= np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len
    allowed = allowed.reshape(batch, kv_heads, group, q_len, k_len).transpose(3, 0, 4, 1, 2)
    scores = np.where(allowed, scores, np.float32(-np.inf))
    highest = np.max(scores, axis=2, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(highest), np.float32(0), highest))
    total = np.einsum("wzuyx->zyxw", weights)
    mixed = np.einsum("wzuyx,zyur->zyxwr", weights, v.astype(np.float32), optimize=True)
    mixed = mixed / np.where(total > 0, total, np.float32(1))[..., None]
    return mixed.reshape(batch, heads, q_len, v.shape[3]).astype(q.dtype)
