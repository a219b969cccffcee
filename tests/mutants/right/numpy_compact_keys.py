"""Visible keys of each row are gathered to the front, so that the products run over the longest visible list only."""

import numpy as np


def kernel(q, k, v, *, mask=None, bias=None, causal=False, window=None, scale=None, block_q=16):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    full = (batch, heads, q_len, k_len)
    distance = np.arange(k_len) - (np.arange(q_len)[:, None] + k_len - q_len)
    allowed = np.array(np.broadcast_to(True if mask is None else mask, full))
    if causal:
        allowed &= distance <= 0
    if window is not None:
        left, right = window
        allowed &= True if left is None else distance >= -left
        allowed &= True if right is None else distance <= right
    if bias is not None:
        bias = np.broadcast_to(np.asarray(bias, dtype=np.float32), full)
    batch_index = np.arange(batch)[:, None, None, None]
    head_index = (np.arange(heads) // group)[None, :, None, None]
    out = np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)

    for start in range(0, q_len, block_q):
        rows = slice(start, start + block_q)
        visible = allowed[:, :, rows]
        count = visible.sum(axis=-1, keepdims=True)
        longest = count.max(initial=0)
        if longest == 0:
            continue
        order = np.argsort(~visible, axis=-1, kind="stable")[..., :longest]  # visible keys first, in their old order
        keys = k[batch_index, head_index, order].astype(np.float32)  # (B, Hq, rows, longest, D)
        values = v[batch_index, head_index, order].astype(np.float32)
        logits = np.matmul(keys, q[:, :, rows, :, None].astype(np.float32))[..., 0] * scale
        if bias is not None:
            logits = logits + np.take_along_axis(bias[:, :, rows], order, axis=-1)
        logits = np.where(np.arange(longest) < count, logits, -np.inf)
        highest = logits.max(axis=-1, keepdims=True)
        weights = np.exp(logits - np.where(np.isneginf(highest), 0, highest))
        total = weights.sum(axis=-1, keepdims=True)
        mixed = np.matmul(weights[..., None, :], values)[..., 0, :]
        out[:, :, rows] = mixed / np.where(total == 0, 1, total)
    return out
