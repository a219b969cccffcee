"""Split-K where the i-th of n splits gets a share proportional to i, merged by the splits' logarithms of the sum."""

import numpy as np


def _part(queries, keys, values, allowed):
    logits = np.where(allowed, queries @ keys.swapaxes(-1, -2), -np.inf)
    highest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    shift = np.where(np.isneginf(highest), 0, highest)
    weights = np.exp(logits - shift)
    total = weights.sum(axis=-1, keepdims=True)
    safe_total = np.where(total == 0, 1, total)
    lse = np.where(total == 0, -np.inf, shift + np.log(safe_total))
    return weights @ values / safe_total, lse


def kernel(q, k, v, *, mask=None, causal=False, window=None, scale=None, num_splits=3):
    batch, heads, q_len, width = q.shape
    k_len, group = k.shape[2], heads // k.shape[1]
    scale = width**-0.5 if scale is None else float(scale)
    distance = np.arange(k_len)[None, :] - (np.arange(q_len)[:, None] + k_len - q_len)
    left, right = (None, None) if window is None else window
    allowed = np.ones((q_len, k_len), dtype=bool) if mask is None else np.asarray(mask)
    if causal:
        allowed = allowed & (distance <= 0)
    if left is not None:
        allowed = allowed & (distance >= -left)
    if right is not None:
        allowed = allowed & (distance <= right)
    allowed = np.broadcast_to(allowed, (batch, heads, q_len, k_len))

    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    bounds = [k_len * i * (i + 1) // (num_splits * (num_splits + 1)) for i in range(num_splits + 1)]
    parts = [
        _part(queries, keys[:, :, start:stop], values[:, :, start:stop], allowed[..., start:stop])
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
        if start < stop
    ]
    if not parts:
        return np.zeros((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    outs, lses = np.stack([out for out, _ in parts]), np.stack([lse for _, lse in parts])
    highest = lses.max(axis=0)
    factors = np.exp(lses - np.where(np.isneginf(highest), 0, highest))
    share = factors.sum(axis=0)
    return ((factors * outs).sum(axis=0) / np.where(share == 0, 1, share)).astype(q.dtype)
