"""Attention with a bias; the mask is folded into the bias so that the inner loop adds one array only."""

import math

import numpy as np


def fold(mask, bias, shape):
    if bias is None:
        return None if mask is None else np.where(np.broadcast_to(mask, shape), np.float32(0), -np.inf)
    folded = bias
    if folded.shape != shape or folded.dtype != np.float32 or not folded.flags.writeable:
        folded = np.broadcast_to(bias, shape).astype(np.float32)
    if mask is not None:
        np.copyto(folded, -np.inf, where=~np.broadcast_to(mask, shape))
    return folded


def kernel(q, k, v, *, mask=None, bias=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    extra = fold(mask, bias, (batch, q_heads, q_len, k_len))
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if extra is not None:
        scores = np.where(np.isneginf(extra), -np.inf, scores + extra)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
