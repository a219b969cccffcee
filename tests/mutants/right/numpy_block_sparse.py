"""A coarse map says which tiles hold a visible key; the others are never touched, whatever lies in them."""

import numpy as np


def _tile_map(allowed, block_q, block_k):
    """One entry a tile: does any row of any batch and head see any key in it?"""
    seen = allowed.any(axis=(0, 1))
    row_starts, key_starts = range(0, seen.shape[0], block_q), range(0, seen.shape[1], block_k)
    return {(i, j) for i in row_starts for j in key_starts if seen[i : i + block_q, j : j + block_k].any()}


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, block_q=32, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    distance = np.arange(k_len) - np.arange(q_len)[:, None] - (k_len - q_len)
    allowed = np.ones((batch, heads, q_len, k_len), dtype=bool)
    if mask is not None:
        allowed &= mask
    if causal:
        allowed &= distance <= 0
    if window is not None and window[0] is not None:
        allowed &= distance >= -window[0]
    if window is not None and window[1] is not None:
        allowed &= distance <= window[1]

    needed = _tile_map(allowed, block_q, block_k)
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    for i in range(0, q_len, block_q):
        rows = slice(i, i + block_q)
        queries = q[:, :, rows].astype(np.float32) * scale
        highest = np.full(queries.shape[:3] + (1,), -np.inf, dtype=np.float32)
        total = np.zeros_like(highest)
        weighted = np.zeros(queries.shape[:3] + (v.shape[3],), dtype=np.float32)
        for j in range(0, k_len, block_k):
            if (i, j) not in needed:
                continue
            columns = slice(j, j + block_k)
            keys = np.repeat(k[:, :, columns].astype(np.float32), group, axis=1)
            values = np.repeat(v[:, :, columns].astype(np.float32), group, axis=1)
            logits = np.where(allowed[:, :, rows, columns], queries @ keys.swapaxes(-1, -2), -np.inf)
            new_highest = np.maximum(highest, logits.max(axis=-1, keepdims=True))
            # a row may still be empty here although its tile is not
            shift = np.where(np.isneginf(new_highest), 0, new_highest)
            weights, rescale = np.exp(logits - shift), np.exp(highest - shift)
            total = total * rescale + weights.sum(axis=-1, keepdims=True)
            weighted = weighted * rescale + weights @ values
            highest = new_highest
        out[:, :, rows] = weighted / np.where(total == 0, 1, total)
    return out
