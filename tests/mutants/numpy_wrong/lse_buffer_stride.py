"""FlashAttention-2 whose statistics go to a flat buffer with rows padded to whole tiles."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, causal=False, scale=None, block_q=32):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    tiles = -(-q_len // block_q)
    padded_len = tiles * block_q
    buffer = np.full((batch * q_heads, padded_len), -np.inf, np.float32)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    for tile in range(tiles):
        rows = slice(tile * block_q, min((tile + 1) * block_q, q_len))
        scores = q[:, :, rows].astype(np.float32) @ keys.swapaxes(2, 3) * scale
        if causal:
            position = np.arange(rows.start, rows.stop)[:, None] + k_len - q_len
            scores = np.where(np.arange(k_len) <= position, scores, -np.inf)
        peak = scores.max(-1, initial=-np.inf)
        safe = np.where(np.isneginf(peak), 0, peak)
        weights = np.exp(scores - safe[..., None])
        total = weights.sum(-1)
        denominator = np.where(total > 0, total, 1)
        out[:, :, rows] = weights @ values / denominator[..., None]
        lse = np.where(total > 0, safe + np.log(denominator), -np.inf)
        buffer[:, rows] = lse.reshape(batch * q_heads, rows.stop - rows.start)
    return out, buffer.reshape(-1)[: batch * q_heads * q_len].reshape(batch, q_heads, q_len)
