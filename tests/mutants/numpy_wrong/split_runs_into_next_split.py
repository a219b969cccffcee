"""Flash-decoding: the keys are cut into num_splits chunks, each chunk runs in tiles of 16, the chunks are merged."""

import math

import numpy as np

TILE = 16


def chunk(q, k, v, begin, end, k_len):
    top = np.full((*q.shape[:-1], 1), -np.inf, np.float32)
    total = np.zeros_like(top)
    acc = np.zeros((*q.shape[:-1], v.shape[-1]), np.float32)
    for start in range(begin, end, TILE):
        stop = min(start + TILE, k_len)
        scores = q @ k[..., start:stop, :].swapaxes(-1, -2)
        new_top = np.maximum(top, scores.max(-1, keepdims=True))
        weights = np.exp(scores - new_top)
        alpha = np.exp(top - new_top)
        total = total * alpha + weights.sum(-1, keepdims=True)
        acc = acc * alpha + weights @ v[..., start:stop, :]
        top = new_top
    return top, total, acc


def kernel(q, k, v, *, scale=None, num_splits=4):
    batch, q_heads, q_len, width = q.shape
    k_len, group = k.shape[2], q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = q.astype(np.float32) * scale
    keys = np.repeat(k.astype(np.float32), group, axis=1)
    values = np.repeat(v.astype(np.float32), group, axis=1)
    if k_len == 0:
        return np.zeros((batch, q_heads, q_len, v.shape[3]), q.dtype)
    size = -(-k_len // num_splits)
    parts = [chunk(queries, keys, values, b, min(b + size, k_len), k_len) for b in range(0, k_len, size)]
    top = np.max([part[0] for part in parts], axis=0)
    total = sum(part[1] * np.exp(part[0] - top) for part in parts)
    acc = sum(part[2] * np.exp(part[0] - top) for part in parts)
    return (acc / total).astype(q.dtype)
