"""Attention with a two-pass decode for one query over a long cache: heads are programs that index the flattened cache."""

import math

import numpy as np

LONG = 64


def plain(q, k, v, scale):
    scores = q @ k.swapaxes(-1, -2) * scale
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True)
    return weights @ v / np.where(total > 0, total, 1)


def two_pass(q, k, v, scale):
    batch, q_heads = q.shape[:2]
    planes = batch * k.shape[1]
    group = q_heads // k.shape[1]
    flat_keys, flat_values = k.reshape(planes, *k.shape[2:]), v.reshape(planes, *v.shape[2:])
    plane = np.arange(batch)[:, None] * q_heads + np.arange(q_heads) // group
    plane = plane % planes
    scores = np.einsum("bhd,bhjd->bhj", q[:, :, 0], flat_keys[plane]) * scale
    peak = np.stack([block.max(-1) for block in np.array_split(scores, 4, axis=-1)]).max(0)
    weights = np.exp(scores - peak[..., None])
    return (np.einsum("bhj,bhje->bhe", weights, flat_values[plane]) / weights.sum(-1, keepdims=True))[:, :, None]


def kernel(q, k, v, *, scale=None):
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    queries, keys, values = (x.astype(np.float32) for x in (q, k, v))
    if q.shape[2] == 1 and k.shape[2] >= LONG and q.shape[0] > 0:
        return two_pass(queries, keys, values, scale).astype(q.dtype)
    group = q.shape[1] // k.shape[1]
    return plain(queries, np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1), scale).astype(q.dtype)
