"""Kahan summation over the key tiles: numerator and denominator each carry the rounding error of their last addition."""

import numpy as np


class _CompensatedSum:
    def __init__(self, shape):
        self.value = np.zeros(shape, dtype=np.float32)
        self.lost = np.zeros(shape, dtype=np.float32)

    def add(self, term):
        corrected = term - self.lost
        grown = self.value + corrected
        self.lost = (grown - self.value) - corrected
        self.value = grown


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, block_k=8):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys = np.repeat(k, group, axis=1).astype(np.float32)
    values = np.repeat(v, group, axis=1).astype(np.float32)
    distance = np.arange(k_len) - np.arange(q_len)[:, None] - (k_len - q_len)
    allowed = distance <= 0 if causal else np.ones_like(distance, dtype=bool)
    if window is not None:
        left, right = window
        allowed = allowed & (distance >= (-np.inf if left is None else -left)) & (distance <= (np.inf if right is None else right))
    if mask is not None:
        allowed = np.logical_and(allowed, mask)
    logits = np.where(allowed, (q.astype(np.float32) * scale) @ keys.swapaxes(-1, -2), -np.inf)
    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isneginf(highest), 0, highest))

    numerator = _CompensatedSum((batch, heads, q_len, v.shape[3]))
    denominator = _CompensatedSum((batch, heads, q_len, 1))
    for start in range(0, k_len, block_k):
        tile = slice(start, start + block_k)
        numerator.add(weights[..., tile] @ values[:, :, tile])
        denominator.add(weights[..., tile].sum(axis=-1, keepdims=True))
    return (numerator.value / np.where(denominator.value == 0, 1, denominator.value)).astype(q.dtype)
