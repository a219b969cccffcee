"""Ring order: the i-th query tile starts at the i-th key tile and wraps around, so that no two tiles read the same keys first."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None, block_q=32, block_k=32):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    mask = np.broadcast_to(np.bool_(True) if mask is None else mask, full)
    bias = None if bias is None else np.broadcast_to(np.asarray(bias, dtype=np.float32), full)
    key_starts = list(range(0, k_len, block_k))
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    for turn, query_start in enumerate(range(0, q_len, block_q)):
        rows = slice(query_start, min(query_start + block_q, q_len))
        positions = np.arange(rows.start, rows.stop)[:, None] + k_len - q_len
        queries = q[:, :, rows].astype(np.float32)
        state_shape = (batch, heads, rows.stop - rows.start, 1)
        highest = np.full(state_shape, -np.inf, dtype=np.float32)
        total = np.zeros(state_shape, dtype=np.float32)
        weighted = np.zeros(state_shape[:3] + (v.shape[3],), dtype=np.float32)
        pivot = turn % max(len(key_starts), 1)
        for key_start in key_starts[pivot:] + key_starts[:pivot]:
            columns = slice(key_start, min(key_start + block_k, k_len))
            keys = np.repeat(k[:, :, columns].astype(np.float32), group, axis=1)
            logits = scale * (queries @ keys.swapaxes(-1, -2))
            if softcap is not None:
                logits = softcap * np.tanh(logits / softcap)
            if bias is not None:
                logits = logits + bias[:, :, rows, columns]
            distance = np.arange(columns.start, columns.stop) - positions
            allowed = mask[:, :, rows, columns]
            allowed = allowed & (distance <= 0) if causal else allowed
            if window is not None:
                allowed = allowed if window[0] is None else allowed & (distance >= -window[0])
                allowed = allowed if window[1] is None else allowed & (distance <= window[1])
            logits = np.where(allowed, logits, -np.inf)
            new_highest = np.maximum(highest, logits.max(axis=-1, keepdims=True))
            shift = np.where(np.isneginf(new_highest), 0, new_highest)
            rescale, weights = np.exp(highest - shift), np.exp(logits - shift)
            total = total * rescale + weights.sum(axis=-1, keepdims=True)
            weighted = weighted * rescale + weights @ np.repeat(v[:, :, columns].astype(np.float32), group, axis=1)
            highest = new_highest
        if sinks is not None:
            sink = np.asarray(sinks, dtype=np.float32)[:, None, None]
            top = np.maximum(highest, sink)
            top = np.where(np.isneginf(top), 0, top)
            weighted = weighted * np.exp(highest - top)
            total = total * np.exp(highest - top) + np.exp(sink - top)
        out[:, :, rows] = weighted / np.where(total == 0, 1, total)
    return out.astype(q.dtype)
