"""Finished logits, less their maximum, are multiplied by log2(e), and the softmax is taken in base two; a sink is a column."""

import numpy as np

LOG2_E = 1.4426950408889634


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    keys = np.repeat(np.asarray(k, dtype=np.float32), group, axis=1)
    values = np.repeat(np.asarray(v, dtype=np.float32), group, axis=1)
    logits = np.matmul(np.asarray(q, dtype=np.float32), keys.swapaxes(2, 3)) * scale
    if softcap is not None:
        logits = np.tanh(logits / softcap) * softcap
    if bias is not None:
        logits = logits + np.asarray(bias, dtype=np.float32)

    hidden = np.zeros((q_len, k_len), dtype=bool)
    ahead = np.subtract.outer(np.arange(q_len) + k_len - q_len, np.arange(k_len))
    if causal:
        hidden |= ahead < 0
    if window is not None and window[0] is not None:
        hidden |= ahead > window[0]
    if window is not None and window[1] is not None:
        hidden |= ahead < -window[1]
    if mask is not None:
        hidden = hidden | ~np.asarray(mask)
    logits = np.where(hidden, -np.inf, logits)
    if sinks is not None:
        # one more column, whose value row is zero
        column = np.broadcast_to(np.asarray(sinks, dtype=np.float32)[:, None, None], (batch, heads, q_len, 1))
        logits = np.concatenate([logits, column], axis=-1, dtype=np.float32)
        values = np.concatenate([values, np.zeros_like(values, shape=(batch, heads, 1, v.shape[3]))], axis=2)
    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp2((logits - np.where(np.isneginf(highest), 0, highest)) * LOG2_E)
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ values / np.where(total == 0, 1, total)).astype(q.dtype)
