"""Every key tile is a leaf with its own softmax; neighbours are merged in pairs, level by level, up to one root."""

import numpy as np


def _leaf(logits, values):
    highest = logits.max(axis=-1, keepdims=True)
    weights = np.exp(logits - np.where(np.isneginf(highest), 0, highest))
    return highest, weights.sum(axis=-1, keepdims=True), weights @ values


def _merge(left, right):
    highest = np.maximum(left[0], right[0])
    shift = np.where(np.isneginf(highest), 0, highest)
    left_factor, right_factor = np.exp(left[0] - shift), np.exp(right[0] - shift)
    total = left[1] * left_factor + right[1] * right_factor
    return highest, total, left[2] * left_factor + right[2] * right_factor


def kernel(q, k, v, *, mask=None, bias=None, causal=False, scale=None, sinks=None, block_k=16):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    queries = q.astype(np.float32) * scale
    keys = k.astype(np.float32).repeat(group, axis=1)
    values = v.astype(np.float32).repeat(group, axis=1)
    logits = queries @ keys.swapaxes(-1, -2)
    if bias is not None:
        logits = logits + np.asarray(bias, dtype=np.float32)
    if causal:
        logits = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), logits, -np.inf)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)

    level = [_leaf(logits[..., j : j + block_k], values[:, :, j : j + block_k]) for j in range(0, k_len, block_k)]
    if sinks is not None:
        sink = np.broadcast_to(np.asarray(sinks, dtype=np.float32)[:, None, None], (batch, heads, q_len, 1))
        nothing = np.zeros((batch, heads, q_len, v.shape[3]), dtype=np.float32)
        level.append((sink, np.where(np.isneginf(sink), np.float32(0), np.float32(1)), nothing))
    if not level:
        return np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    while len(level) > 1:
        pairs = [_merge(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
    _, total, weighted = level[0]
    return (weighted / np.where(total == 0, 1, total)).astype(q.dtype)
