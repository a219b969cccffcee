"""Three sweeps: maximum, then denominator, then values with weights that are already normalised; query rows in blocks."""

import numpy as np


def _logits(queries, keys, allowed):
    return np.where(allowed, queries @ keys.swapaxes(-1, -2), -np.inf)


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=64, block_k=24):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys, values = (np.repeat(x.astype(np.float32), group, axis=1) for x in (k, v))
    allowed = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.ones((q_len, k_len), dtype=bool)
    allowed = np.broadcast_to(allowed if mask is None else np.logical_and(mask, allowed), (batch, heads, q_len, k_len))
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    for row in range(0, q_len, block_q):
        rows = slice(row, row + block_q)
        queries = q[:, :, rows].astype(np.float32) * scale
        tiles = [slice(start, start + block_k) for start in range(0, k_len, block_k)]
        highest = np.full(queries.shape[:3] + (1,), -np.inf, dtype=np.float32)
        for tile in tiles:
            highest = np.maximum(highest, _logits(queries, keys[:, :, tile], allowed[:, :, rows, tile]).max(axis=-1, keepdims=True))
        highest = np.where(np.isneginf(highest), 0, highest)
        total = np.zeros_like(highest)
        for tile in tiles:
            total += np.exp(_logits(queries, keys[:, :, tile], allowed[:, :, rows, tile]) - highest).sum(axis=-1, keepdims=True)
        inverse = 1 / np.where(total == 0, 1, total)
        gathered = np.zeros(queries.shape[:3] + (v.shape[3],), dtype=np.float32)
        for tile in tiles:
            weights = np.exp(_logits(queries, keys[:, :, tile], allowed[:, :, rows, tile]) - highest) * inverse
            gathered += weights @ values[:, :, tile]
        out[:, :, rows] = gathered
    return out
