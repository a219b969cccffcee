"""Plain attention; masks of lower rank are brought to four axes first."""

import math

import numpy as np


def four_axes(mask):
    if mask.ndim == 3:
        return mask[:, None]
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


def kernel(q, k, v, *, mask=None, bias=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group, q_len, width)
    scores = queries @ k[:, :, None].astype(np.float32).swapaxes(-1, -2) * scale
    scores = scores.reshape(batch, q_heads, q_len, k_len)
    if bias is not None:
        scores = scores + bias.astype(np.float32)
    if mask is not None:
        scores = np.where(four_axes(mask), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    weights = (weights / np.where(total > 0, total, 1)).reshape(batch, kv_heads, group, q_len, k_len)
    return (weights @ v[:, :, None].astype(np.float32)).reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
