"""Split-K whose i-th split owns the keys i, i + n, i + 2n, ...: every split sees the whole length."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, softcap=None, scale=None, sinks=None, num_splits=4):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    full = (batch, heads, q_len, k_len)
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.astype(np.float32)
    rows = np.arange(q_len)[:, None] + k_len - q_len
    mask = None if mask is None else np.broadcast_to(mask, full)
    bias = None if bias is None else np.broadcast_to(bias, full)

    highest, totals, weighted = [], [], []
    for first in range(min(num_splits, k_len)):
        mine = slice(first, None, num_splits)
        keys = np.repeat(k[:, :, mine].astype(np.float32), group, axis=1)
        values = np.repeat(v[:, :, mine].astype(np.float32), group, axis=1)
        logits = np.matmul(queries, keys.transpose(0, 1, 3, 2)) * scale
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        if bias is not None:
            logits = logits + bias[..., mine].astype(np.float32)
        if causal:
            logits = np.where(np.arange(k_len)[mine] <= rows, logits, -np.inf)
        if mask is not None:
            logits = np.where(mask[..., mine], logits, -np.inf)
        top = logits.max(axis=-1, keepdims=True)
        weights = np.exp(logits - np.where(np.isneginf(top), 0, top))
        highest.append(top)
        totals.append(weights.sum(axis=-1, keepdims=True))
        weighted.append(weights @ values)
    if sinks is not None:
        sink = np.broadcast_to(np.asarray(sinks, dtype=np.float32)[:, None, None], (batch, heads, q_len, 1))
        highest.append(sink)
        totals.append(np.ones_like(sink))
        weighted.append(np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32))
    if not highest:
        return np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)

    top = np.maximum.reduce(highest)
    shift = np.where(np.isneginf(top), 0, top)
    factors = [np.exp(each - shift) for each in highest]
    total = sum(factor * each for factor, each in zip(factors, totals, strict=True))
    out = sum(factor * each for factor, each in zip(factors, weighted, strict=True))
    return (out / np.where(total == 0, 1, total)).astype(q.dtype)
