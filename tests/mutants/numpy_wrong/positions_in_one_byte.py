"""Attention with position masks compared as bytes: vector units compare four times as many bytes as words at once."""

import math

import numpy as np


def positions(begin, count):
    return np.arange(begin, begin + count).astype(np.uint8)


def kernel(q, k, v, *, causal=False, scale=None, block_q=64):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        count = min(block_q, q_len - first)
        scores = q[:, :, first : first + count].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        # both sides are moved so that no position is negative
        lead = max(q_len - k_len, 0)
        if causal:
            row = positions(first + k_len - q_len + lead, count)
            scores = np.where(positions(lead, k_len) <= row[:, None], scores, -np.inf)
        peak = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
        total = weights.sum(-1, keepdims=True)
        out[:, :, first : first + count] = weights @ values / np.where(total > 0, total, 1)
    return out
