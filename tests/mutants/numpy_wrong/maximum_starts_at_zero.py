"""Token-by-token attention: every key updates maximum, denominator and accumulator of all rows at once."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = (q.astype(np.float32) * scale).reshape(batch, kv_heads, group, q_len, width)
    keys, values = k.astype(np.float32), v.astype(np.float32)
    top = np.zeros((batch, kv_heads, group, q_len), np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((batch, kv_heads, group, q_len, v.shape[3]), np.float32)
    diagonal = np.arange(q_len) + k_len - q_len
    for j in range(k_len):
        score = np.einsum("bngid,bnd->bngi", queries, keys[:, :, j])
        if causal:
            score = np.where(j <= diagonal, score, -np.inf)
        new_top = np.maximum(top, score)
        shift = np.where(np.isneginf(new_top), 0, new_top)
        weight, decay = np.exp(score - shift), np.exp(top - shift)
        total = total * decay + weight
        acc = acc * decay[..., None] + weight[..., None] * values[:, :, None, None, j]
        top = new_top
    out = acc / np.where(total > 0, total, 1)[..., None]
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
