"""A blockwise transformer block: attention by tiles, then the feed-forward network of the same tile."""

import numpy as np


def kernel(q, k, v, w_in, w_out, *, causal=False, scale=None, activation="relu", block_q=32, block_k=32):
    batch, heads, length, width = q.shape
    scale = np.float32(width**-0.5 if scale is None else scale)
    group = heads // k.shape[1]
    keys, values = (np.repeat(x.astype(np.float32), group, axis=1) for x in (k, v))
    queries, first, second = q.astype(np.float32), w_in.astype(np.float32), w_out.astype(np.float32)
    out = np.zeros((batch, length, heads * width), np.float32)
    for start in range(0, length, block_q):
        rows = np.arange(start, min(start + block_q, length))
        maximum = np.full((batch, heads, len(rows), 1), -np.inf, np.float32)
        total, gathered = np.zeros_like(maximum), np.zeros((batch, heads, len(rows), width), np.float32)
        for begin in range(0, length, block_k):
            columns = np.arange(begin, min(begin + block_k, length))
            if causal and begin > rows[-1]:
                break
            scores = queries[:, :, rows] @ keys[:, :, columns].swapaxes(2, 3) * scale
            if causal:
                scores = np.where(columns <= rows[:, None], scores, -np.inf)
            highest = np.maximum(maximum, scores.max(-1, keepdims=True))
            decay, weights = np.exp(maximum - highest), np.exp(scores - highest)
            total = total * decay + weights.sum(-1, keepdims=True)
            gathered = gathered * decay + weights @ values[:, :, columns]
            maximum = highest
        attended = gathered / total + queries[:, :, rows]
        tokens = attended.swapaxes(1, 2).reshape(batch, len(rows), heads * width)
        inner = tokens @ first
        active = np.maximum(inner, 0) if activation == "relu" else inner / (1 + np.exp(-inner))
        out[:, rows] = tokens + (active @ second if len(rows) == block_q or start == 0 else 0)
    return out.astype(q.dtype)
