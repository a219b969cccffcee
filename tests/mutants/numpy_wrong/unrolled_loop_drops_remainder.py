"""Token-by-token decode loop, unrolled by four keys inside blocks of block_k."""

import math

import numpy as np

UNROLL = 4


def kernel(q, k, v, *, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = (q.astype(np.float32) * scale).reshape(batch, kv_heads, group * q_len, width)
    keys = k.astype(np.float32).transpose(0, 1, 3, 2)
    values = v.astype(np.float32)
    row_max = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((batch, kv_heads, group * q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        stop = min(start + block_k, k_len)
        unrolled_stop = start + (stop - start) // UNROLL * UNROLL
        if stop - start < UNROLL:
            unrolled_stop = stop
        for j in range(start, unrolled_stop, UNROLL):
            scores = queries @ keys[..., j : min(j + UNROLL, unrolled_stop)]
            new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
            weights = np.exp(scores - new_max)
            decay = np.exp(row_max - new_max)
            row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, j : min(j + UNROLL, unrolled_stop)]
            row_max = new_max
    out = acc / np.where(row_sum > 0, row_sum, 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
