"""Hidden weights are set to zero after the exponential; the maximum is taken over the allowed keys only, so nothing overflows."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys = np.repeat(np.asarray(k, dtype=np.float32), group, axis=1)
    values = np.repeat(np.asarray(v, dtype=np.float32), group, axis=1)
    logits = np.asarray(q, dtype=np.float32) @ keys.swapaxes(-2, -1) * scale
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    if bias is not None:
        logits = logits + np.asarray(bias, dtype=np.float32)
    left, right = (None, None) if window is None else window
    right = right if not causal else (0 if right is None else min(right, 0))
    steps = np.arange(k_len)[None, :] - np.arange(k_len - q_len, k_len)[:, None]
    allowed = np.full((batch, heads, q_len, k_len), True if mask is None else mask)
    if left is not None:
        allowed &= steps >= -left
    if right is not None:
        allowed &= steps <= right

    highest = np.max(logits, axis=-1, keepdims=True, initial=-np.inf, where=allowed)
    if sinks is not None:
        sink = np.asarray(sinks, dtype=np.float32)[:, None, None]
        highest = np.maximum(highest, sink)
    highest = np.where(np.isneginf(highest), 0, highest)
    # fmin: a hidden logit may be far above the maximum, or not a number after an overflow in the product
    weights = np.exp(np.fmin(logits - highest, 0))
    weights = np.where(allowed, weights, 0)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sink - highest)
    return (weights @ values / np.where(total == 0, 1, total)).astype(q.dtype)
