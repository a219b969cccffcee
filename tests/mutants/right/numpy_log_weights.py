"""Normalised weights come straight from the logarithm: exp((s - m) - log(sum exp(s - m))), with no division anywhere."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, softcap=None, scale=None, sinks=None):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    head_map = np.arange(heads) // group
    logits = scale * np.einsum("bhid,bhjd->bhij", q.astype(np.float32), k.astype(np.float32)[:, head_map], optimize=True)
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    if bias is not None:
        logits = logits + np.asarray(bias, dtype=np.float32)
    query_position, key_position = np.ogrid[k_len - q_len : k_len, 0:k_len]
    allowed = np.ones((q_len, k_len), dtype=bool) if mask is None else np.asarray(mask)
    if causal:
        allowed = allowed & (key_position <= query_position)
    if window is not None:
        left, right = window
        allowed = allowed if left is None else allowed & (key_position >= query_position - left)
        allowed = allowed if right is None else allowed & (key_position <= query_position + right)
    logits = np.where(allowed, logits, -np.inf)

    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        sink = np.asarray(sinks, dtype=np.float32)[:, None, None]
        highest = np.maximum(highest, sink)
    shift = np.where(np.isneginf(highest), 0, highest)
    centred = logits - shift
    total = np.exp(centred).sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sink - shift)
    log_total = np.log(np.where(total == 0, 1, total))
    weights = np.exp(centred - log_total)
    return (weights @ v.astype(np.float32)[:, head_map]).astype(q.dtype)
