"""The pattern is asked about small integers, which are cheap to broadcast."""

import numpy as np


def kernel(q, k, v, *, pattern, scale=None):
    queries, keys, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    rows, columns = np.arange(queries).astype(np.uint8)[:, None], np.arange(keys).astype(np.uint8)[None, :]
    allowed = np.broadcast_to(pattern(rows.astype(np.int32), columns.astype(np.int32)), (queries, keys))
    out = np.zeros((*q.shape[:3], v.shape[-1]), q.dtype)
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // group].swapaxes(1, 2) * np.float32(q.shape[-1] ** -0.5 if scale is None else scale)
        scores[:, ~allowed] = -np.inf
        highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
        total = weights.sum(axis=-1, keepdims=True)
        out[:, head] = weights @ v[:, head // group] / np.where(total > 0, total, 1)
    return out
