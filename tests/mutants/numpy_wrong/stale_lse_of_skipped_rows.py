"""Context-parallel attention in one process: every step covers one slice of keys, its result is merged into the whole."""

import math

import numpy as np


def kernel(q, k, v, *, causal=False, scale=None, num_splits=1):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    position = np.arange(q_len) + k_len - q_len
    total_lse = np.full((batch, q_heads, q_len), -np.inf)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]))
    step_lse = np.full((batch, q_heads, q_len), -np.inf)
    size = max(1, -(-k_len // num_splits))
    for begin in range(0, k_len, size):
        part = slice(begin, min(begin + size, k_len))
        step_out = np.zeros((batch, q_heads, q_len, v.shape[3]), np.float32)
        # rows before the slice see nothing of it
        rows = position >= begin if causal else np.ones(q_len, bool)
        scores = queries[:, :, rows] @ keys[:, :, part].swapaxes(2, 3)
        if causal:
            scores = np.where(np.arange(begin, part.stop) <= position[rows, None], scores, -np.inf)
        peak = scores.max(-1, keepdims=True)
        weights = np.exp(scores - peak)
        denominator = weights.sum(-1, keepdims=True)
        step_out[:, :, rows] = weights @ values[:, :, part] / denominator
        step_lse[:, :, rows] = (peak + np.log(denominator))[..., 0]
        top = np.maximum(total_lse, step_lse)
        top = np.where(np.isneginf(top), 0, top)
        old, new = np.exp(total_lse - top), np.exp(step_lse - top)
        both = np.where(old + new > 0, old + new, 1)
        out = (out * old[..., None] + step_out * new[..., None]) / both[..., None]
        total_lse = np.where(old + new > 0, top + np.log(both), -np.inf)
    return out.astype(q.dtype)
