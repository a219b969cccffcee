"""Custom-mask kernel: one flat mask for each head, addressed by row * keys + key with small integers to save registers."""

import math

import numpy as np

INDEX = np.int16


def mask_tile(flat, rows, columns, k_len):
    offset = (rows[:, None] * k_len + columns).astype(INDEX)
    return flat[offset]


def kernel(q, k, v, *, mask=None, scale=None, block_q=64):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    full = None if mask is None else np.broadcast_to(mask, (batch, q_heads, q_len, k_len))
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for b in range(batch):
        for h in range(q_heads):
            flat = None if full is None else full[b, h].ravel()
            keys, values = k[b, h // group].astype(np.float32), v[b, h // group].astype(np.float32)
            for first in range(0, q_len, block_q):
                rows = np.arange(first, min(first + block_q, q_len))
                scores = q[b, h, rows].astype(np.float32) @ keys.T * scale
                if flat is not None:
                    scores = np.where(mask_tile(flat, rows, np.arange(k_len), k_len), scores, -np.inf)
                peak = scores.max(-1, keepdims=True, initial=-np.inf)
                weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
                total = weights.sum(-1, keepdims=True)
                out[b, h, rows] = weights @ values / np.where(total > 0, total, 1)
    return out
