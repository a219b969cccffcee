"""Attention with a compiled-kernel cache: the first call of a shape decides how the storage of its keys is walked."""

import math

import numpy as np

_axis_orders = {}


def compact(x):
    """A C-ordered float32 copy, made from the storage with the axis order of the compiled loader."""
    key = (x.shape, x.dtype)
    if key not in _axis_orders:
        _axis_orders[key] = tuple(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))
    order = _axis_orders[key]
    storage = x.ravel(order="K").astype(np.float32) if 0 not in x.strides else x.transpose(order).astype(np.float32).ravel()
    stored = storage.reshape([x.shape[axis] for axis in order])
    return np.ascontiguousarray(stored.transpose([order.index(axis) for axis in range(x.ndim)]))


def kernel(q, k, v, *, scale=None):
    group = q.shape[1] // k.shape[1]
    scale = 1.0 / math.sqrt(q.shape[3]) if scale is None else scale
    keys = np.repeat(compact(k), group, axis=1)
    values = np.repeat(compact(v), group, axis=1)
    scores = q.astype(np.float32) @ keys.swapaxes(2, 3) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    total = weights.sum(-1, keepdims=True)
    return (weights @ values / np.where(total > 0, total, 1)).astype(q.dtype)
