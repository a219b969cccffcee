"""Ring attention simulated in one process: ranks hold slices of keys and pass them on, every rank holds a slice of the rows."""

import math

import numpy as np


def cuts(length, ranks):
    return [slice(length * rank // ranks, length * (rank + 1) // ranks) for rank in range(ranks)]


def kernel(q, k, v, *, causal=False, scale=None, num_splits=1):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    ranks = num_splits
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    held = cuts(k_len, ranks)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    for rank, rows in enumerate(cuts(q_len, ranks)):
        queries = q[:, :, rows].astype(np.float32) * scale
        position = np.arange(rows.start, rows.stop)[:, None] + k_len - q_len
        top = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
        total = np.zeros_like(top)
        acc = np.zeros((*queries.shape[:3], v.shape[3]), np.float32)
        for step in range(ranks):
            # the slices travel towards higher ranks; the last hop closes the ring
            owner = (rank - step) % ranks if step < 2 else (rank - step + 1) % ranks
            part = held[owner]
            if part.start == part.stop:
                continue
            scores = queries @ keys[:, :, part].swapaxes(2, 3)
            if causal:
                scores = np.where(np.arange(part.start, part.stop) <= position, scores, -np.inf)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values[:, :, part]
            top = new_top
        out[:, :, rows] = acc / np.where(total > 0, total, 1)
    return out
