"""Longformer attention: the global tokens go into a table of a fixed size, as a kernel keeps them in shared memory."""

import numpy as np

SLOTS = 16


def kernel(q, k, v, *, window, global_tokens, causal=False, scale=None, global_self=True, global_rows=True):
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    table = np.full(SLOTS, -1)
    listed = list(dict.fromkeys(global_tokens))[:SLOTS]
    table[: len(listed)] = listed
    i, j = np.arange(length)[:, None], np.arange(length)[None, :]
    rows, columns = np.isin(i, table), np.isin(j, table)
    mask = (np.abs(i - j) <= window) | columns
    if global_rows:
        mask = mask | rows
    if not global_self:
        mask = mask & ~(rows & (i == j))
    if causal:
        mask = mask & (i >= j)
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.where(mask, q @ k.swapaxes(2, 3) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale), -np.inf)
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
    total = weights.sum(axis=-1, keepdims=True)
    return weights @ v / np.where(total > 0, total, 1)
