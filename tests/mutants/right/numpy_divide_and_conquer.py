"""Recursion over the keys: a long range is halved, each half attends on its own, and the two answers are merged on the way up."""

import numpy as np

LEAF = 24


def _attend(queries, keys, values, allowed):
    """Row maximum, denominator and numerator over one range of keys."""
    k_len = keys.shape[2]
    if k_len <= LEAF:
        logits = np.where(allowed, queries @ keys.swapaxes(-1, -2), -np.inf)
        highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(logits - np.where(np.isneginf(highest), 0, highest))
        return highest, weights.sum(axis=-1, keepdims=True), weights @ values
    middle = k_len // 2
    low = _attend(queries, keys[:, :, :middle], values[:, :, :middle], allowed[..., :middle])
    high = _attend(queries, keys[:, :, middle:], values[:, :, middle:], allowed[..., middle:])
    highest = np.maximum(low[0], high[0])
    shift = np.where(np.isneginf(highest), 0, highest)
    low_factor, high_factor = np.exp(low[0] - shift), np.exp(high[0] - shift)
    return highest, low[1] * low_factor + high[1] * high_factor, low[2] * low_factor + high[2] * high_factor


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    distance = np.arange(k_len)[None, :] - np.arange(q_len)[:, None] - (k_len - q_len)
    allowed = np.ones((q_len, k_len), dtype=bool)
    if causal:
        allowed[distance > 0] = False
    if window is not None:
        left, right = window
        if left is not None:
            allowed[distance < -left] = False
        if right is not None:
            allowed[distance > right] = False
    allowed = np.broadcast_to(allowed if mask is None else allowed & mask, (batch, heads, q_len, k_len))
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    _, total, weighted = _attend(q.astype(np.float32) * scale, keys, values, allowed)
    return (weighted / np.where(total == 0, 1, total)).astype(q.dtype)
