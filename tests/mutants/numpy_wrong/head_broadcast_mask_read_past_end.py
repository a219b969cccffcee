"""Attention that reads its mask through a flat pointer: one plane of (queries, keys) for each sequence and head."""

import math

import numpy as np


def planes(mask, batch, q_heads, q_len, k_len):
    """Mask planes in the order of the programs; reads that leave the buffer wrap round, as they would in a ring buffer."""
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    full = np.broadcast_to(mask, (*mask.shape[:2], q_len, k_len)).reshape(-1, q_len, k_len)
    program = np.arange(batch * q_heads)
    return full.take(program, axis=0, mode="wrap").reshape(batch, q_heads, q_len, k_len)


def kernel(q, k, v, *, mask=None, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    if 0 in (batch, q_len, k_len):
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    if mask is not None:
        scores = np.where(planes(mask, batch, q_heads, q_len, k_len), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
