"""One pass over the keys in blocks of 48; numerator and denominator share one array, the denominator in the last column."""

import math

import numpy as np

BLOCK = 48


def kernel(q, k, v, *, scale=None, softcap=None):
    batch, q_heads, q_len, width = q.shape
    kv_heads, k_len = k.shape[1], k.shape[2]
    group = q_heads // kv_heads
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32).reshape(batch, kv_heads, group * q_len, width)
    ones = np.ones((batch, kv_heads, k_len, 1), np.float32)
    extended = np.concatenate([v.astype(np.float32), ones], axis=-1)
    state = np.zeros((batch, kv_heads, group * q_len, v.shape[3] + 1), np.float32)
    top = np.full((batch, kv_heads, group * q_len, 1), -np.inf, np.float32)
    for start in range(0, k_len, BLOCK):
        scores = np.einsum("bhid,bhjd->bhij", queries, k[:, :, start : start + BLOCK].astype(np.float32)) * scale
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        state[..., :-1] *= np.exp(top - new_top)
        state += np.exp(scores - new_top) @ extended[:, :, start : start + BLOCK]
        top = new_top
    out = state[..., :-1] / np.where(state[..., -1:] > 0, state[..., -1:], 1)
    return out.reshape(batch, q_heads, q_len, v.shape[3]).astype(q.dtype)
