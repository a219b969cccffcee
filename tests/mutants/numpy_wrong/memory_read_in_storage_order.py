"""Kernel that hands flat buffers to its inner loop, as a C routine would expect them."""

import math

import numpy as np


def flat_buffer(x):
    return x.ravel(order="K").astype(np.float32)


def inner(q_data, k_data, v_data, shapes, scale, causal):
    q_shape, k_shape, v_shape = shapes
    q_heads, q_len = q_shape[1], q_shape[2]
    k_len, group = k_shape[2], q_heads // k_shape[1]
    queries = q_data.reshape(q_shape)
    keys = np.repeat(k_data.reshape(k_shape), group, axis=1)
    values = np.repeat(v_data.reshape(v_shape), group, axis=1)
    scores = queries @ keys.swapaxes(2, 3) * scale
    if causal:
        scores = np.where(np.tri(q_len, k_len, k_len - q_len, dtype=bool), scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    return weights @ values / np.where(total > 0, total, 1)


def kernel(q, k, v, *, causal=False, scale=None):
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    shapes = (q.shape, k.shape, v.shape)
    return inner(flat_buffer(q), flat_buffer(k), flat_buffer(v), shapes, scale, causal).astype(q.dtype)
