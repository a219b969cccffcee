"""The FlashAttention-2 loop order: query tiles outside, and only the key tiles that causality and the window can reach inside."""

import numpy as np


def _key_range(first_row, last_row, k_len, causal, window):
    """First and one-past-last key that any of the (already aligned) rows may see."""
    left, right = (None, None) if window is None else window
    if causal:
        right = 0 if right is None else min(right, 0)
    start = 0 if left is None else max(first_row - left, 0)
    stop = k_len if right is None else min(last_row + right + 1, k_len)
    return start, stop, left, right


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None, block_q=48, block_k=32):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    visible = np.broadcast_to(np.asarray(True if mask is None else mask), full)
    added = np.broadcast_to(np.asarray(0 if bias is None else bias, dtype=np.float32), full)
    sink_logits = np.full(heads, -np.inf) if sinks is None else sinks
    out = np.empty((batch, heads, q_len, v.shape[3]), dtype=q.dtype)

    for query_start in range(0, q_len, block_q):
        query_stop = min(query_start + block_q, q_len)
        query_tile = slice(query_start, query_stop)
        rows = np.arange(query_start, query_stop)[:, None] + k_len - q_len
        start, stop, left, right = _key_range(query_start + k_len - q_len, query_stop - 1 + k_len - q_len, k_len, causal, window)
        queries = q[:, :, query_tile].astype(np.float32)
        # the sink is the first logit that the running softmax sees: its value is nothing, its weight is one
        highest = np.broadcast_to(np.asarray(sink_logits, dtype=np.float32)[:, None, None], (batch, heads, query_stop - query_start, 1))
        total = np.where(np.isneginf(highest), np.float32(0), np.float32(1))
        weighted = np.zeros((batch, heads, query_stop - query_start, v.shape[3]), dtype=np.float32)
        for key_start in range(start, stop, block_k):
            key_tile = slice(key_start, min(key_start + block_k, stop))
            columns = np.arange(key_tile.start, key_tile.stop)
            keys = np.repeat(k[:, :, key_tile].astype(np.float32), group, axis=1)
            values = np.repeat(v[:, :, key_tile].astype(np.float32), group, axis=1)
            logits = np.einsum("bhqd,bhkd->bhqk", queries, keys) * scale
            if softcap is not None:
                logits = np.tanh(logits / softcap) * softcap
            allowed = visible[:, :, query_tile, key_tile]
            if left is not None:
                allowed = allowed & (columns >= rows - left)
            if right is not None:
                allowed = allowed & (columns <= rows + right)
            logits = np.where(allowed, logits + added[:, :, query_tile, key_tile], -np.inf)
            new_highest = np.maximum(highest, logits.max(axis=-1, keepdims=True))
            shift = np.where(np.isneginf(new_highest), 0, new_highest)
            rescale = np.exp(highest - shift)
            weights = np.exp(logits - shift)
            total = total * rescale + weights.sum(axis=-1, keepdims=True)
            weighted = weighted * rescale + np.matmul(weights, values)
            highest = new_highest
        out[:, :, query_tile] = weighted / np.where(total == 0, 1, total)
    return out
