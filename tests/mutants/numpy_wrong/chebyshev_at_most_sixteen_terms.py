import numpy as np


def coefficients(degree, low, high):
    points = np.cos((np.arange(64) + 0.5) * np.pi / 64) if degree >= 64 else np.cos((np.arange(degree + 1) + 0.5) * np.pi / (degree + 1))
    values = np.exp((high - low) / 2 * (points - 1))
    angles = np.arccos(points)
    made = [2 / len(points) * np.sum(values * np.cos(order * angles)) for order in range(degree + 1)]
    made[0] /= 2
    return made[:16]


def kernel(q, k, v, *, degree, domain, scale=None):
    stored = q.dtype
    q, k, v = (x.astype(np.float64 if stored == np.float64 else np.float32) for x in (q, k, v))
    low, high = domain
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = np.clip(q @ np.swapaxes(k, -1, -2) * q.dtype.type(scale), q.dtype.type(low), q.dtype.type(high))
    x = (2 * logits - q.dtype.type(low + high)) / q.dtype.type(high - low)
    this, last = np.zeros_like(x), np.zeros_like(x)
    first, *others = coefficients(degree, low, high)
    for coefficient in others[::-1]:
        this, last = 2 * x * this - last + q.dtype.type(coefficient), this
    weights = x * this - last + q.dtype.type(first)
    if k.shape[2] == 0:
        return (weights @ v).astype(stored)
    return (weights @ v / weights.sum(axis=-1, keepdims=True)).astype(stored)
