import numpy as np

LARGEST_BLOCK = 64


def quantised(x, size):
    codes, scales = np.zeros_like(x), np.zeros((*x.shape[:3], 1), np.float32)
    for start in range(0, x.shape[2], size):
        rows = slice(start, start + size)
        scale = np.abs(x[:, :, rows]).max(axis=(2, 3), keepdims=True) / np.float32(127)
        codes[:, :, rows] = np.rint(x[:, :, rows] / np.where(scale == 0, 1, scale))
        scales[:, :, rows] = scale
    return codes, scales


def kernel(q, k, v, *, query_block=128, key_block=64, smooth_k=True, causal=False, scale=None):
    stored, group = q.dtype, q.shape[1] // k.shape[1]
    q, k, v = (x.astype(np.float32) for x in (q, k, v))
    queries, keys = q.shape[2], k.shape[2]
    if smooth_k and keys:
        k = k - k.mean(axis=2, keepdims=True)
    q, q_scales = quantised(q, min(query_block, LARGEST_BLOCK))
    k, k_scales = (np.repeat(x, group, axis=1) for x in quantised(k, key_block))
    logits = (q @ np.swapaxes(k, -1, -2)) * q_scales * np.swapaxes(k_scales, -1, -2)
    logits = logits * np.float32(q.shape[3] ** -0.5 if scale is None else scale)
    allowed = np.ones((queries, keys), bool)
    if causal:
        allowed = np.arange(keys) <= np.arange(queries)[:, None] + keys - queries
    largest = np.where(allowed, logits, -np.inf).max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.where(allowed, np.exp(logits - np.where(np.isfinite(largest), largest, 0)), 0)
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ np.repeat(v, group, axis=1) / np.where(total == 0, 1, total)).astype(stored)
