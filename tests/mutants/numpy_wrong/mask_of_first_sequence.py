"""Online softmax with a loop over the batch; the mask is brought to (heads, queries, keys) once, outside the loop."""

import math

import numpy as np

TILE = 32


def kernel(q, k, v, *, mask=None, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    if batch == 0:
        return out
    allowed = np.ones((q_heads, q_len, k_len), bool)
    if mask is not None:
        allowed = allowed & np.broadcast_to(mask, (batch, q_heads, q_len, k_len))[0]
    if causal:
        allowed = allowed & (np.arange(k_len) <= np.arange(q_len)[:, None] + k_len - q_len)
    for b in range(batch):
        queries = q[b].astype(np.float32) * scale
        top = np.full((q_heads, q_len, 1), -np.inf, np.float32)
        total = np.zeros_like(top)
        acc = np.zeros((q_heads, q_len, v.shape[3]), np.float32)
        for start in range(0, k_len, TILE):
            part = slice(start, start + TILE)
            keys = np.repeat(k[b, :, part].astype(np.float32), group, axis=0)
            values = np.repeat(v[b, :, part].astype(np.float32), group, axis=0)
            scores = np.where(allowed[..., part], queries @ keys.swapaxes(1, 2), -np.inf)
            new_top = np.maximum(top, scores.max(-1, keepdims=True))
            safe = np.where(np.isneginf(new_top), 0, new_top)
            weights, decay = np.exp(scores - safe), np.exp(top - safe)
            total = total * decay + weights.sum(-1, keepdims=True)
            acc = acc * decay + weights @ values
            top = new_top
        out[b] = acc / np.where(total > 0, total, 1)
    return out
