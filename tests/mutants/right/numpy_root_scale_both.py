"""The square root of the scale goes into both q and k, which halves the range of each; the sign stays with q."""

import math

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = 1 / math.sqrt(width) if scale is None else float(scale)
    root = math.sqrt(abs(scale))
    queries = q.astype(np.float32) * math.copysign(root, scale)
    keys = k.astype(np.float32) * root
    logits = np.empty((batch, heads, q_len, k_len), dtype=np.float32)
    for head in range(heads):
        logits[:, head] = queries[:, head] @ keys[:, head // group].transpose(0, 2, 1)
    if bias is not None:
        logits += bias
    if causal:
        future = np.triu(np.ones((q_len, k_len), dtype=bool), k=k_len - q_len + 1)
        np.copyto(logits, -np.inf, where=future)
    if mask is not None:
        np.copyto(logits, -np.inf, where=~np.asarray(mask))
    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isneginf(highest), 0, highest))
    total = weights.sum(axis=-1, keepdims=True)
    weights /= np.where(total == 0, 1, total)
    values = v.astype(np.float32)
    out = np.empty((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    for head in range(heads):
        out[:, head] = weights[:, head] @ values[:, head // group]
    return out
