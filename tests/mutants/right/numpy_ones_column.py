"""A column of ones is appended to V, so that one product gives numerator and denominator together."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None, sinks=None, block_q=64):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys = np.repeat(k.astype(np.float32), group, axis=1).swapaxes(-1, -2)
    ones = np.ones(v.shape[:3] + (1,), dtype=np.float32)
    values = np.repeat(np.concatenate([v.astype(np.float32), ones], axis=-1), group, axis=1)
    full = (batch, heads, q_len, k_len)
    mask = None if mask is None else np.broadcast_to(mask, full)
    bias = None if bias is None else np.broadcast_to(bias, full)
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    for start in range(0, q_len, block_q):
        rows = slice(start, min(start + block_q, q_len))
        logits = (q[:, :, rows].astype(np.float32) @ keys) * scale
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        if bias is not None:
            logits = logits + bias[:, :, rows].astype(np.float32)
        if causal:
            positions = np.arange(rows.start, rows.stop)[:, None] + k_len - q_len
            logits = np.where(np.arange(k_len) > positions, -np.inf, logits)
        if mask is not None:
            logits = np.where(mask[:, :, rows], logits, -np.inf)
        highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
        if sinks is not None:
            highest = np.maximum(highest, np.asarray(sinks, dtype=np.float32)[:, None, None])
        highest = np.where(np.isneginf(highest), 0, highest)
        both = np.exp(logits - highest) @ values
        numerator, denominator = both[..., :-1], both[..., -1:]
        if sinks is not None:
            denominator = denominator + np.exp(np.asarray(sinks, dtype=np.float32)[:, None, None] - highest)
        np.divide(numerator, denominator, out=out[:, :, rows], where=denominator > 0, casting="same_kind")
    return out
