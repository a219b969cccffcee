import numpy as np


def kernel(q, k, v, *, mask=None, scale=None):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    logits = (q @ k.swapaxes(-1, -2)) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf).astype(np.float32)
        mask[...] = True
    largest = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(largest), largest, np.float32(0)))
    total = weights.sum(axis=-1, keepdims=True)
    return (weights @ v) / np.where(total == 0, np.float32(1), total)
