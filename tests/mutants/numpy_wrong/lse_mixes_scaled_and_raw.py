"""FlashAttention-2: the maximum is kept on the unscaled products, the scale is folded into the exponent."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, mask=None, scale=None, block_k=64):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    allowed = np.broadcast_to(np.bool_(True) if mask is None else mask, (batch, q_heads, q_len, k_len))
    queries = q.astype(np.float32)
    row_max = np.full((batch, q_heads, q_len), -np.inf, np.float32)
    row_sum = np.zeros_like(row_max)
    acc = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    for start in range(0, k_len, block_k):
        part = slice(start, start + block_k)
        products = queries @ np.repeat(k[:, :, part].astype(np.float32), group, axis=1).swapaxes(2, 3)
        products = np.where(allowed[..., part], products, -np.inf)
        new_max = np.maximum(row_max, products.max(-1))
        safe = np.where(np.isneginf(new_max), 0, new_max)
        weights = np.where(allowed[..., part], np.exp((products - safe[..., None]) * scale), 0)
        decay = np.where(row_sum > 0, np.exp((row_max - safe) * scale), 0)
        row_sum = row_sum * decay + weights.sum(-1)
        acc = acc * decay[..., None] + weights @ np.repeat(v[:, :, part].astype(np.float32), group, axis=1)
        row_max = new_max
    safe_sum = np.where(row_sum > 0, row_sum, 1)
    lse = np.where(row_sum > 0, row_max + np.log(safe_sum), -np.inf)
    return (acc / safe_sum[..., None]).astype(q.dtype), lse.astype(np.float32)
