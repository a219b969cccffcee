"""Sliding-window attention with sinks: tiles of keys outside the window of a tile of rows are not visited."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, window=None, scale=None, sinks=None, block_q=32, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    offset = k_len - q_len
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    sink = None if sinks is None else sinks.astype(np.float32)[:, None, None]
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        rows = slice(first, min(first + block_q, q_len))
        position = np.arange(first, rows.stop)[:, None] + offset
        queries = q[:, :, rows].astype(np.float32) * scale
        k_begin = 0 if left is None else max(first + offset - left, 0) // block_k * block_k
        k_end = k_len if right is None else min(k_len, rows.stop + offset + right)
        top = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
        total = np.zeros_like(top)
        acc = np.zeros((*queries.shape[:3], v.shape[3]), np.float32)
        for start in range(k_begin, k_end, block_k):
            if start == 0 and sink is not None:
                top, total = np.maximum(top, sink), np.ones_like(total)
            column = np.arange(start, min(start + block_k, k_end))
            keep = np.ones((len(position), len(column)), bool)
            if left is not None:
                keep &= column >= position - left
            if right is not None:
                keep &= column <= position + right
            scores = np.where(keep, queries @ keys[:, :, column].swapaxes(2, 3), -np.inf)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, column]
            top = new_top
        out[:, :, rows] = acc / np.where(total > 0, total, 1)
    return out
