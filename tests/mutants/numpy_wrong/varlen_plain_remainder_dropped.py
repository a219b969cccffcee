import numpy as np

TILE = 64


def kernel(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal=False, window=None, scale=None):
    stored = q.dtype
    q, k, v = (x.astype(np.float32) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    scale = np.float32(q.shape[2] ** -0.5 if scale is None else scale)
    left, right = (None, None) if window is None else window
    out = np.zeros((q.shape[0], q.shape[1], v.shape[2]), np.float32)
    for first, last, start, end in zip(cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:]):
        masked = causal or left is not None or right is not None
        if not masked and end - start > TILE and (end - start) % TILE < 4:
            end -= (end - start) % TILE
        distance = np.arange(end - start) - (np.arange(last - first)[:, None] + (end - start) - (last - first))
        allowed = np.ones(distance.shape, bool)
        if causal:
            allowed &= distance <= 0
        if left is not None:
            allowed &= distance >= -left
        if right is not None:
            allowed &= distance <= right
        for head in range(q.shape[1]):
            logits = q[first:last, head] @ k[start:end, head // group].T * scale
            largest = np.where(allowed, logits, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
            weights = np.where(allowed, np.exp(logits - np.where(np.isfinite(largest), largest, 0)), 0)
            total = weights.sum(axis=1, keepdims=True)
            out[first:last, head] = weights @ v[start:end, head // group] / np.where(total == 0, 1, total)
    return out.astype(stored)
