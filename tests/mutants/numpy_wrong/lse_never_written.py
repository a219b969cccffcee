"""Attention with two outputs; both are allocated up front and filled by the loop over heads."""

import math

import numpy as np


def attention_with_lse(q, k, v, *, scale=None):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    workspace = np.full((2, batch, q_heads, q_len), -np.inf, np.float32)
    out = np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    if k_len == 0:
        return out, workspace[1]
    for head in range(q_heads):
        keys, values = k[:, head // group].astype(np.float32), v[:, head // group].astype(np.float32)
        scores = q[:, head].astype(np.float32) @ keys.swapaxes(1, 2) * scale
        peak = scores.max(-1)
        weights = np.exp(scores - peak[..., None])
        total = weights.sum(-1)
        workspace[0, :, head] = peak + np.log(total)
        out[:, head] = weights @ values / total[..., None]
    return out, workspace[1]
