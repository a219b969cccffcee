"""FlashAttention-2 for wide heads: the products are made in two panels of 64 columns that fit into registers."""

import math

import numpy as np

PANEL = 64
PANELS = 2


def kernel(q, k, v, *, causal=False, scale=None, block_q=32, block_k=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    panels = [slice(n * PANEL, (n + 1) * PANEL) for n in range(PANELS)]
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for first in range(0, q_len, block_q):
        queries = q[:, :, first : first + block_q].astype(np.float32) * scale
        position = np.arange(first, first + queries.shape[2])[:, None] + k_len - q_len
        top = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
        total = np.zeros_like(top)
        acc = np.zeros((*queries.shape[:3], v.shape[3]), np.float32)
        for start in range(0, k_len, block_k):
            k_tile = keys[:, :, start : start + block_k]
            scores = sum(queries[..., panel] @ k_tile[..., panel].swapaxes(2, 3) for panel in panels)
            if causal:
                scores = np.where(start + np.arange(k_tile.shape[2]) <= position, scores, -np.inf)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, start : start + block_k]
            top = new_top
        out[:, :, first : first + block_q] = acc / np.where(total > 0, total, 1)
    return out
