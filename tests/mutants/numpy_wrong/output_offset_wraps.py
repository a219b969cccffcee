"""One program a (sequence, head); results go to a flat output buffer at program * queries * width."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    plane = q_len * v.shape[3]
    flat = np.zeros(batch * q_heads * plane, q.dtype)
    allowed = np.tri(q_len, k_len, k_len - q_len, dtype=bool) if causal else np.ones((q_len, k_len), bool)
    for program in range(batch * q_heads):
        b, h = divmod(program, q_heads)
        scores = q[b, h].astype(np.float32) @ k[b, h // group].astype(np.float32).T * scale
        scores = np.where(allowed, scores, -np.inf)
        peak = scores.max(1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
        total = weights.sum(1, keepdims=True)
        tile = weights @ v[b, h // group].astype(np.float32) / np.where(total > 0, total, 1)
        offset = program * plane & 0xFFFF
        room = min(plane, flat.size - offset)
        flat[offset : offset + room] = tile.ravel()[:room]
    return flat.reshape(batch, q_heads, q_len, v.shape[3])
