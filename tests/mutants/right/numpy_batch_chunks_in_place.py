"""The batch goes through fixed work buffers, one sequence at a time; every step writes through out= into its own storage."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None):
    batch, heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1:3]
    group = heads // kv_heads
    scale = np.float32(width**-0.5 if scale is None else scale)
    out = np.empty((batch, heads, q_len, v.shape[3]), dtype=np.float32)
    if k_len == 0:
        out.fill(0)
        return out.astype(q.dtype)
    full = (batch, heads, q_len, k_len)
    mask = None if mask is None else np.broadcast_to(mask, full)
    bias = None if bias is None else np.broadcast_to(bias, full)
    future = np.arange(k_len) > np.arange(q_len)[:, None] + k_len - q_len
    scores = np.empty((heads, q_len, k_len), dtype=np.float32)
    column = np.empty((heads, q_len, 1), dtype=np.float32)
    for item in range(batch):
        keys = k[item].astype(np.float32).repeat(group, axis=0)
        values = v[item].astype(np.float32).repeat(group, axis=0)
        np.matmul(q[item].astype(np.float32), keys.transpose(0, 2, 1), out=scores)
        np.multiply(scores, scale, out=scores)
        if bias is not None:
            np.add(scores, bias[item].astype(np.float32), out=scores)
        if causal:
            np.putmask(scores, np.broadcast_to(future, scores.shape), -np.inf)
        if mask is not None:
            np.putmask(scores, ~mask[item], -np.inf)
        np.max(scores, axis=-1, keepdims=True, out=column)
        np.copyto(column, 0, where=np.isneginf(column))
        np.subtract(scores, column, out=scores)
        np.exp(scores, out=scores)
        np.sum(scores, axis=-1, keepdims=True, out=column)
        np.copyto(column, 1, where=column == 0)
        np.matmul(scores, values, out=out[item])
        np.divide(out[item], column, out=out[item])
    return out.astype(q.dtype, copy=False)
