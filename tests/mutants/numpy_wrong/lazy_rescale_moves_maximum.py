"""FlashAttention with lazy rescaling: the accumulator is only rescaled when the maximum of some row rises by more than 8.

A stale maximum is harmless as long as the same one is used for numerator and denominator.
"""

import math

import numpy as np

THRESHOLD = 8.0


def kernel(q, k, v, *, scale=None, block_k=64):
    k_len, group = k.shape[2], q.shape[1] // k.shape[1]
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    row_max = np.full((*q.shape[:3], 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((*q.shape[:3], v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        scores = queries @ keys[:, :, start : start + block_k].swapaxes(2, 3)
        new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
        rises = new_max - row_max > THRESHOLD
        rescale = np.where(rises, np.exp(row_max - new_max), np.float32(1))
        row_max = new_max
        weights = np.exp(scores - row_max)
        row_sum = row_sum * rescale + weights.sum(-1, keepdims=True)
        acc = acc * rescale + weights @ values[:, :, start : start + block_k]
    return (acc / np.where(row_sum > 0, row_sum, 1)).astype(q.dtype)
