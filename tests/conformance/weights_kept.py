"""Attention whose weights are kept in a narrow format for their product with the values: one function for each format."""

import ml_dtypes
import numpy as np


def attention(q, k, v, rounded, causal, scale):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    stored = q.dtype
    q, k, v = (x.astype(np.float32) for x in (q, np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)))
    logits = q @ np.swapaxes(k, -1, -2) * np.float32(scale)
    queries, keys = logits.shape[-2:]
    if causal:
        logits = np.where(np.arange(keys) <= np.arange(queries)[:, None] + keys - queries, logits, -np.inf)
    maximum = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isneginf(maximum), 0, maximum))
    total = weights.sum(axis=-1, keepdims=True)
    return (rounded(weights) @ v / np.where(total == 0, 1, total)).astype(stored)


def in_bfloat16(q, k, v, *, causal=False, scale=None):
    return attention(q, k, v, lambda weights: weights.astype(ml_dtypes.bfloat16).astype(np.float32), causal, scale)


def in_float16(q, k, v, *, causal=False, scale=None):
    return attention(q, k, v, lambda weights: weights.astype(np.float16).astype(np.float32), causal, scale)


def in_float8(q, k, v, *, causal=False, scale=None):
    return attention(q, k, v, lambda weights: weights.astype(ml_dtypes.float8_e4m3fn).astype(np.float32), causal, scale)


def in_int8(q, k, v, *, causal=False, scale=None):
    return attention(q, k, v, lambda weights: np.rint(weights * 127).astype(np.int8).astype(np.float32) / 127, causal, scale)
