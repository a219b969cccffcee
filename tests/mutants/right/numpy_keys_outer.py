"""The first FlashAttention loop order: key tiles outside, query tiles inside, the output kept normalised at every step."""

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, scale=None, block_q=32, block_k=32):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    scale = width**-0.5 if scale is None else float(scale)
    head_map = np.arange(heads) // (heads // kv_heads)
    visible = None if mask is None else np.broadcast_to(mask, (batch, heads, q_len, k_len))
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    highest = np.full((batch, heads, q_len, 1), -np.inf, dtype=np.float32)
    total = np.zeros((batch, heads, q_len, 1), dtype=np.float32)

    for key_start in range(0, k_len, block_k):
        key_tile = slice(key_start, min(key_start + block_k, k_len))
        keys = k[:, head_map, key_tile].astype(np.float32).swapaxes(-1, -2)
        values = v[:, head_map, key_tile].astype(np.float32)
        columns = np.arange(key_tile.start, key_tile.stop)
        for query_start in range(0, q_len, block_q):
            query_tile = slice(query_start, min(query_start + block_q, q_len))
            rows = np.arange(query_tile.start, query_tile.stop)[:, None] + k_len - q_len
            logits = (q[:, :, query_tile].astype(np.float32) @ keys) * scale
            if causal:
                logits = np.where(columns <= rows, logits, -np.inf)
            if visible is not None:
                logits = np.where(visible[:, :, query_tile, key_tile], logits, -np.inf)

            old_highest, old_total = highest[:, :, query_tile], total[:, :, query_tile]
            new_highest = np.maximum(old_highest, logits.max(axis=-1, keepdims=True))
            shift = np.where(np.isneginf(new_highest), 0, new_highest)
            weights = np.exp(logits - shift)
            carried = old_total * np.exp(old_highest - shift)
            new_total = carried + weights.sum(axis=-1, keepdims=True)
            divisor = np.where(new_total == 0, 1, new_total)
            out[:, :, query_tile] = (out[:, :, query_tile] * carried + weights @ values) / divisor
            highest[:, :, query_tile] = new_highest
            total[:, :, query_tile] = new_total
    return out.astype(q.dtype)
