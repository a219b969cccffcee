"""Tensor-core manner: each tile's weights are rounded to the storage dtype before they meet V; all sums stay in float32."""

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, block_q=64, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    head_map = np.arange(heads) // group
    visible = None if mask is None else np.broadcast_to(mask, (batch, heads, q_len, k_len))
    out = np.empty((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    for row in range(0, q_len, block_q):
        rows = slice(row, min(row + block_q, q_len))
        positions = np.arange(rows.start, rows.stop)[:, None] + k_len - q_len
        queries = q[:, :, rows].astype(np.float32)
        highest = np.full(queries.shape[:3] + (1,), -np.inf, dtype=np.float32)
        total = np.zeros_like(highest)
        weighted = np.zeros(queries.shape[:3] + (v.shape[3],), dtype=np.float32)
        for start in range(0, k_len, block_k):
            tile = slice(start, min(start + block_k, k_len))
            # products of two halves are exact in float32, so widening first is what a float32 accumulator sees
            logits = queries @ k[:, head_map, tile].astype(np.float32).swapaxes(-1, -2) * scale
            columns = np.arange(tile.start, tile.stop)
            if causal:
                logits = np.where(columns <= positions, logits, -np.inf)
            if window is not None and window[0] is not None:
                logits = np.where(columns >= positions - window[0], logits, -np.inf)
            if window is not None and window[1] is not None:
                logits = np.where(columns <= positions + window[1], logits, -np.inf)
            if visible is not None:
                logits = np.where(visible[:, :, rows, tile], logits, -np.inf)
            new_highest = np.maximum(highest, logits.max(axis=-1, keepdims=True))
            shift = np.where(np.isneginf(new_highest), 0, new_highest)
            weights, rescale = np.exp(logits - shift), np.exp(highest - shift)
            total = total * rescale + weights.sum(axis=-1, keepdims=True)
            stored = weights.astype(q.dtype)
            weighted = weighted * rescale + stored.astype(np.float32) @ v[:, head_map, tile].astype(np.float32)
            highest = new_highest
        out[:, :, rows] = (weighted / np.where(total == 0, 1, total)).astype(q.dtype)
    return out
