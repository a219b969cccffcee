"""Decode kernel on a key/value cache: sequences are found by their number, rows and heads by the strides of the view."""

import math

import numpy as np


def sequence(cache, number):
    """Heads, rows and width of one sequence: (kv_heads, length, width)."""
    heads, length, width = cache.shape[1:]
    used = heads * length * width * cache.itemsize
    if number == 0 or cache.strides[0] < used:
        return cache[number]
    return np.lib.stride_tricks.as_strided(cache, (number + 1, heads, length, width), (used, *cache.strides[1:]))[number]


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    visible = np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len if causal else np.ones((q_len, k_len), bool)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for number in range(batch):
        keys = sequence(k, number).astype(np.float32)
        values = sequence(v, number).astype(np.float32)
        for head in range(q_heads):
            scores = q[number, head].astype(np.float32) @ keys[head // group].T * scale
            scores = np.where(visible, scores, -np.inf)
            top = scores.max(-1, keepdims=True, initial=-np.inf)
            weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
            total = weights.sum(-1, keepdims=True)
            out[number, head] = weights @ values[head // group] / np.where(total > 0, total, 1)
    return out
