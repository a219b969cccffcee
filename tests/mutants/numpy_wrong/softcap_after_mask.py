"""Attention with soft-capped logits, as in Gemma 2, over tiles of keys."""

import math

import numpy as np


def capped(scores, softcap):
    return scores if softcap is None else softcap * np.tanh(scores / softcap)


def kernel(q, k, v, *, mask=None, causal=False, softcap=None, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    if causal:
        allowed = allowed & np.tri(q_len, k_len, k_len - q_len, dtype=bool)
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    top = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        scores = queries @ keys[:, :, part].swapaxes(2, 3)
        scores = capped(np.where(allowed[..., part], scores, -np.inf), softcap)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isneginf(new_top), 0, new_top)
        weights, decay = np.exp(scores - safe), np.exp(top - safe)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, part]
        top = new_top
    return (acc / np.where(total > 0, total, 1)).astype(q.dtype)
