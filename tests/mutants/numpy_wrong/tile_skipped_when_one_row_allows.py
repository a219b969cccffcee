"""FlashAttention-2 that skips the second product of a tile whose weights would all vanish next to the running maximum."""

import math

import numpy as np

NEGLIGIBLE = 30.0


def kernel(q, k, v, *, scale=None, block_q=32, block_k=16):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for b in range(batch):
        for h in range(q_heads):
            keys = k[b, h // group].astype(np.float32)
            values = v[b, h // group].astype(np.float32)
            for first in range(0, q_len, block_q):
                queries = q[b, h, first : first + block_q].astype(np.float32) * scale
                top = np.full((len(queries), 1), -np.inf, np.float32)
                total = np.zeros_like(top)
                acc = np.zeros((len(queries), v.shape[3]), np.float32)
                for start in range(0, k_len, block_k):
                    scores = queries @ keys[start : start + block_k].T
                    tile_top = scores.max(1, keepdims=True)
                    if np.any(tile_top < top - NEGLIGIBLE):
                        continue
                    new_top = np.maximum(top, tile_top)
                    weights = np.exp(scores - new_top)
                    decay = np.exp(top - new_top)
                    total = total * decay + weights.sum(1, keepdims=True)
                    acc = acc * decay + weights @ values[start : start + block_k]
                    top = new_top
                out[b, h, first : first + block_q] = acc / np.where(total > 0, total, 1)
    return out
