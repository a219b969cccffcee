"""scale * log2(e) is folded into the queries before the product, and every exponential is a power of two."""

import math

import numpy as np

LOG2_E = math.log2(math.e)


def kernel(q, k, v, *, causal=False, window=None, scale=None, block_k=64):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else float(scale)
    # (B, Hkv, group, Lq, D) against (B, Hkv, 1, D, Lk)
    queries = q.astype(np.float32).reshape(batch, kv_heads, heads // kv_heads, q_len, width) * (scale * LOG2_E)
    keys = k.astype(np.float32)[:, :, None].swapaxes(-1, -2)
    values = v.astype(np.float32)[:, :, None]
    left, right = (None, None) if window is None else window
    highest = np.full(queries.shape[:4] + (1,), -np.inf, dtype=np.float32)
    total = np.zeros_like(highest)
    weighted = np.zeros(queries.shape[:4] + (v.shape[3],), dtype=np.float32)
    for start in range(0, k_len, block_k):
        tile = slice(start, min(start + block_k, k_len))
        distance = np.arange(tile.start, tile.stop) - (np.arange(q_len)[:, None] + k_len - q_len)
        powers = queries @ keys[..., tile]
        if causal:
            powers = np.where(distance <= 0, powers, -np.inf)
        if left is not None:
            powers = np.where(distance >= -left, powers, -np.inf)
        if right is not None:
            powers = np.where(distance <= right, powers, -np.inf)
        new_highest = np.maximum(highest, powers.max(axis=-1, keepdims=True))
        shift = np.where(np.isneginf(new_highest), 0, new_highest)
        weights, rescale = np.exp2(powers - shift), np.exp2(highest - shift)
        total = total * rescale + weights.sum(axis=-1, keepdims=True)
        weighted = weighted * rescale + weights @ values[..., tile, :]
        highest = new_highest
    out = weighted / np.where(total == 0, 1, total)
    return out.reshape(batch, heads, q_len, v.shape[3]).astype(q.dtype)
