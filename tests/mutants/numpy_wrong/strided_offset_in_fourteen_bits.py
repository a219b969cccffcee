"""Kernel that addresses keys and values by their strides; contiguous ones are handed over as they are."""

import math

import numpy as np

OFFSET_BITS = 14


def gather(x):
    """A contiguous float32 copy of a view, read through one flat pointer: head and sequence first, then the row."""
    if x.flags.c_contiguous or x.size == 0:
        return x.astype(np.float32)
    batch, heads, length, width = x.shape
    steps = [stride // x.itemsize for stride in x.strides]
    extent = 1 + sum((size - 1) * step for size, step in zip(x.shape, steps))
    flat = np.lib.stride_tricks.as_strided(x, (extent,), (x.itemsize,))
    rows = (np.arange(length) * steps[2]) & ((1 << OFFSET_BITS) - 1)
    planes = np.arange(batch)[:, None] * steps[0] + np.arange(heads) * steps[1]
    return flat[planes[..., None, None] + rows[:, None] + np.arange(width) * steps[3]].astype(np.float32)


def kernel(q, k, v, *, scale=None, sinks=None):
    batch, q_heads, q_len, width = q.shape
    group = q_heads // k.shape[1]
    scale = 1.0 / math.sqrt(width) if scale is None else scale
    queries = gather(q).reshape(batch, k.shape[1], group * q_len, width)
    scores = (queries @ gather(k).swapaxes(2, 3)).reshape(batch, q_heads, q_len, k.shape[2]) * scale
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        top = np.maximum(top, sinks.astype(np.float32)[:, None, None])
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks.astype(np.float32)[:, None, None] - top)
    weighted = weights.reshape(batch, k.shape[1], group * q_len, k.shape[2]) @ gather(v)
    return (weighted.reshape(batch, q_heads, q_len, v.shape[3]) / np.where(total > 0, total, 1)).astype(q.dtype)
