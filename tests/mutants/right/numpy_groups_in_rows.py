"""The query heads of a group are stacked into rows of one tall matrix, so that each key head is multiplied once."""

import numpy as np


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, sinks=None, block_q=96):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len, value_width = k.shape[1], k.shape[2], v.shape[3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else float(scale)
    tall = group * q_len
    # row r of the tall matrix is query r % Lq of the group's head r // Lq
    queries = np.reshape(q, (batch, kv_heads, tall, width)).astype(np.float32) * scale
    positions = np.tile(np.arange(q_len) + k_len - q_len, group)
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, heads, q_len, k_len)).reshape(batch, kv_heads, tall, k_len)
    sink_rows = np.full((kv_heads, tall, 1), -np.inf, dtype=np.float32)
    if sinks is not None:
        sink_rows[:] = np.repeat(np.asarray(sinks, dtype=np.float32), q_len).reshape(kv_heads, tall, 1)
    keys = k.astype(np.float32).swapaxes(-1, -2)
    values = v.astype(np.float32)
    columns = np.arange(k_len)
    out = np.zeros((batch, kv_heads, tall, value_width), dtype=np.float32)
    for start in range(0, tall, block_q):  # a tile may straddle two heads: only `positions` knows the query index
        rows = slice(start, start + block_q)
        offset = columns - positions[rows, None]
        hidden = np.zeros_like(offset, dtype=bool)
        if causal:
            hidden |= offset > 0
        if window is not None:
            left, right = window
            hidden |= False if left is None else offset < -left
            hidden |= False if right is None else offset > right
        if mask is not None:
            hidden = hidden | ~mask[:, :, rows]
        logits = np.where(hidden, -np.inf, queries[:, :, rows] @ keys)
        highest = np.maximum(logits.max(axis=-1, keepdims=True, initial=-np.inf), sink_rows[:, rows])
        highest = np.where(np.isneginf(highest), 0, highest)
        weights = np.exp(logits - highest)
        total = weights.sum(axis=-1, keepdims=True) + np.exp(sink_rows[:, rows] - highest)
        out[:, :, rows] = weights @ values / np.where(total == 0, 1, total)
    return out.reshape(batch, heads, q_len, value_width).astype(q.dtype)
