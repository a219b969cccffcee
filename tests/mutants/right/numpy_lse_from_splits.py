"""attention_with_lse in any number of even splits; the log-sum is assembled from the splits, never from the whole row."""

import numpy as np


def attention_with_lse(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, num_splits=5):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    full = (batch, heads, q_len, k_len)
    scale = width**-0.5 if scale is None else float(scale)
    allowed = np.array(np.broadcast_to(True if mask is None else mask, full))
    distance = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    if causal:
        allowed &= distance <= 0
    if window is not None and window[0] is not None:
        allowed &= distance >= -window[0]
    if window is not None and window[1] is not None:
        allowed &= distance <= window[1]

    highest = np.full((num_splits, batch, heads, q_len), -np.inf, dtype=np.float32)
    total = np.zeros_like(highest)
    weighted = np.zeros((num_splits, batch, heads, q_len, v.shape[3]), dtype=np.float32)
    for split, members in enumerate(np.array_split(np.arange(k_len), num_splits)):
        if members.size == 0:
            continue
        keys = np.repeat(k[:, :, members], group, axis=1).astype(np.float32)
        values = np.repeat(v[:, :, members], group, axis=1).astype(np.float32)
        logits = q.astype(np.float32) @ keys.swapaxes(-1, -2) * scale
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        if bias is not None:
            logits = logits + np.broadcast_to(np.asarray(bias, dtype=np.float32), full)[..., members]
        logits = np.where(allowed[..., members], logits, -np.inf)
        highest[split] = logits.max(axis=-1)
        weights = np.exp(logits - np.where(np.isneginf(highest[split]), 0, highest[split])[..., None])
        total[split] = weights.sum(axis=-1)
        weighted[split] = weights @ values
    top = highest.max(axis=0)
    shift = np.where(np.isneginf(top), 0, top)
    factors = np.exp(highest - shift)
    denominator = (factors * total).sum(axis=0)
    safe = np.where(denominator == 0, 1, denominator)
    out = (factors[..., None] * weighted).sum(axis=0) / safe[..., None]
    lse = np.where(denominator == 0, -np.inf, shift + np.log(safe))
    return out.astype(q.dtype), lse.astype(q.dtype)
