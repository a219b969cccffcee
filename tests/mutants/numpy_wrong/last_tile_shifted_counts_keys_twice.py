"""Online softmax whose tiles of keys all have the full size: the last one is shifted back so that it ends at the last key."""

import numpy as np


def tile_starts(k_len, block_k):
    starts = list(range(0, k_len - block_k + 1, block_k))
    if k_len % block_k:
        starts.append(max(k_len - block_k, 0))
    return starts


def kernel(q, k, v, *, causal=False, scale=None, block_k=32):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = float(width) ** -0.5 if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    rows = np.arange(q_len)[:, None] + k_len - q_len
    for head in range(q_heads):
        queries = q[:, head].astype(np.float32) * scale
        keys = k[:, head // group].astype(np.float32)
        values = v[:, head // group].astype(np.float32)
        row_max = np.full((batch, q_len, 1), -np.inf, np.float32)
        row_sum = np.zeros((batch, q_len, 1), np.float32)
        acc = np.zeros((batch, q_len, v.shape[3]), np.float32)
        for start in tile_starts(k_len, block_k):
            stop = min(start + block_k, k_len)
            scores = queries @ keys[:, start:stop].transpose(0, 2, 1)
            if causal:
                scores = np.where(np.arange(start, stop) > rows, -np.inf, scores)
            new_max = np.maximum(row_max, scores.max(-1, keepdims=True))
            shift = np.where(np.isneginf(new_max), 0, new_max)
            weights = np.exp(scores - shift)
            decay = np.exp(row_max - shift)
            row_sum = row_sum * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, start:stop]
            row_max = new_max
        out[:, head] = np.where(row_sum > 0, acc / np.where(row_sum > 0, row_sum, 1), 0)
    return out
