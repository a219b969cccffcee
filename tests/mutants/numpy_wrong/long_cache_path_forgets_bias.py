"""Attention that keeps all logits for short caches and goes through chunks of keys for caches of more than 512."""

import math

import numpy as np

LONG = 512
CHUNK = 256


def logits(queries, keys, extra):
    scores = queries @ keys.swapaxes(2, 3)
    return scores if extra is None else scores + extra.astype(np.float32)


def whole(queries, keys, values, extra=None):
    scores = logits(queries, keys, extra)
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    total = weights.sum(-1, keepdims=True)
    return weights @ values / np.where(total > 0, total, 1)


def chunked(queries, keys, values, extra=None):
    top = np.full((*queries.shape[:3], 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((*queries.shape[:3], values.shape[3]), np.float32)
    for start in range(0, keys.shape[2], CHUNK):
        part = slice(start, start + CHUNK)
        scores = logits(queries, keys[:, :, part], None if extra is None else extra[..., part])
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = np.exp(scores - new_top), np.exp(top - new_top)
        total = total * decay + weights.sum(-1, keepdims=True)
        acc = acc * decay + weights @ values[:, :, part]
        top = new_top
    return acc / total


def attend(queries, keys, values, extra):
    if keys.shape[2] > LONG:
        return chunked(queries, keys, values)
    return whole(queries, keys, values, extra)


def kernel(q, k, v, *, bias=None, scale=None):
    group = q.shape[1] // k.shape[1]
    queries = q.astype(np.float32) * (1.0 / math.sqrt(q.shape[3]) if scale is None else scale)
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    extra = None if bias is None else np.broadcast_to(bias, (*q.shape[:3], k.shape[2]))
    return attend(queries, keys, values, extra).astype(q.dtype)
