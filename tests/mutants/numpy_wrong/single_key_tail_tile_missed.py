"""Keys-outer loop after the first FlashAttention paper: the output is kept normalised after every tile of keys."""

import numpy as np

TILE = 32


def kernel(q, k, v, *, bias=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / np.sqrt(np.float32(width)) if scale is None else np.float32(scale)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
    row_max = np.full((batch, q_heads, q_len, 1), -np.inf, np.float32)
    row_sum = np.zeros((batch, q_heads, q_len, 1), np.float32)
    rows = np.arange(q_len)[:, None] + (k_len - q_len)
    if bias is not None:
        bias = np.broadcast_to(bias, (batch, q_heads, q_len, k_len))

    tiles = (k_len + TILE - 2) // TILE
    for tile in range(tiles):
        keys = slice(tile * TILE, min((tile + 1) * TILE, k_len))
        k_tile = np.repeat(k[:, :, keys].astype(np.float32), group, axis=1)
        v_tile = np.repeat(v[:, :, keys].astype(np.float32), group, axis=1)
        scores = (q.astype(np.float32) @ k_tile.swapaxes(-1, -2)) * scale
        if bias is not None:
            scores = scores + bias[..., keys].astype(np.float32)
        if causal:
            scores = np.where(np.arange(keys.start, keys.stop) <= rows, scores, -np.inf)
        tile_max = scores.max(-1, keepdims=True)
        new_max = np.maximum(row_max, tile_max)
        safe_max = np.where(np.isneginf(new_max), np.float32(0), new_max)
        weights = np.exp(scores - safe_max)
        carried = row_sum * np.exp(row_max - safe_max)
        new_sum = carried + weights.sum(-1, keepdims=True)
        out = (out * carried + weights @ v_tile) / np.where(new_sum > 0, new_sum, 1)
        row_max, row_sum = new_max, new_sum
    return out.astype(q.dtype)
