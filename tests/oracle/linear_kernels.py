"""Linear attention of one head, computed in the many ways that correct kernels compute it.

All take features (or what they are made of) in float32, rounded after every operation, and return float32; `cast` rounds every factor of
a matrix product to a storage dtype first, as matrix units read them.
"""

from __future__ import annotations

import numpy as np

FLOAT = np.float32


def features(x, name):
    x = x.astype(FLOAT)
    if name == "exp":
        return np.exp(x)
    above = np.maximum(x, 0)
    if name == "elu+1":
        return np.where(x > 0, x + FLOAT(1), np.exp(np.minimum(x, 0)))
    return above + FLOAT(1) if name == "relu+1" else above


def divide(weighed, total, eps, reciprocal=False):
    divisor = total + FLOAT(eps)
    return weighed * (FLOAT(1) / divisor) if reciprocal else weighed / divisor


def parallel(q, k, v, *, causal, eps, cast=None, normalise="after", reciprocal=False):
    """All weights, then their sums."""
    weights = stored(q, cast) @ stored(k, cast).T
    weights = np.tril(weights) if causal else weights
    total = weights.sum(-1, keepdims=True)
    if normalise == "before":
        return stored(divide(weights, total, eps, reciprocal), cast) @ v
    return divide(stored(weights, cast) @ v, total, eps, reciprocal)


def recurrent(q, k, v, *, causal, eps, cast=None, backwards=False, reciprocal=False):
    """One token after another; without causality the order is free."""
    q, k = stored(q, cast), stored(k, cast)
    state, sizes = np.zeros((k.shape[1], v.shape[1]), FLOAT), np.zeros((k.shape[1], 1), FLOAT)
    out = np.empty((len(q), v.shape[1]), FLOAT)
    for token in reversed(range(len(k))) if backwards and not causal else range(len(k)):
        state = state + k[token][:, None] * v[token]
        sizes = sizes + k[token][:, None]
        if causal:
            out[token] = divide(q[token] @ stored(state, cast), q[token] @ stored(sizes, cast), eps, reciprocal)
    return out if causal else divide(q @ stored(state, cast), q @ stored(sizes, cast), eps, reciprocal)


def chunked(q, k, v, *, causal, eps, cast=None, chunk=16, reciprocal=False):
    """Weights inside a chunk, a state for what came before, a column of ones for the denominator."""
    q, k = stored(q, cast), stored(k, cast)
    v = np.concatenate([v, np.ones((len(v), 1), FLOAT)], axis=1)
    state, sums = np.zeros((k.shape[1], v.shape[1]), FLOAT), np.empty_like(v)
    for start in range(0, len(k), chunk):
        rows = slice(start, start + chunk)
        if causal:
            sums[rows] = q[rows] @ stored(state, cast) + stored(np.tril(q[rows] @ k[rows].T), cast) @ v[rows]
        state = state + k[rows].T @ v[rows]
    if not causal:
        sums = q @ stored(state, cast)
    return divide(sums[:, :-1], sums[:, -1:], eps, reciprocal)


def stored(x, dtype):
    return x if dtype is None else x.astype(dtype).astype(FLOAT)
