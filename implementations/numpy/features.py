"""Features of linear attention and of Performers in NumPy, and the two ways to divide sums that are carried along."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from implementations.numpy.logits import Array
from implementations.tiling import tiles

__all__ = ["features", "gates", "quotient", "state_sums"]


def features(x: Array, feature_map: str) -> Array:
    """Non-negative features, elementwise."""
    if feature_map == "exp":
        return np.exp(x)
    above = np.maximum(x, 0)
    if feature_map == "elu+1":
        # exp(min(x, 0)) is 1 where x is above 0, and keeps its digits far below, which 1 + expm1(x) would not.
        return above + np.exp(np.minimum(x, 0))
    return above + 1 if feature_map == "relu+1" else above


def gates(k: Array) -> Array:
    """sigmoid(sum_d k_jd), (B, H, L, 1), by the exponential that cannot overflow."""
    total = k.sum(axis=-1, keepdims=True)
    tail = np.exp(-np.abs(total))
    return np.where(total >= 0, 1, tail) / (1 + tail)


def quotient(weighed: Array, total: Array, eps: float) -> Array:
    """weighed / (total + eps); 0 / 0 is left to be NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return weighed / (total + eps)


def state_sums(queries: Array, keys: Array, values: Array, chunk_size: int) -> Iterator[tuple[slice, Array]]:
    """Causal sums chunk by chunk: what came before by a state (B, H, M, E), the chunk itself by its weights.

    Yields:
        The rows of a chunk and, for them, sum_{j <= i} (queries_i . keys_j) values_j (B, H, C, E).
    """
    batch, heads, length, width = keys.shape
    state = np.zeros((batch, heads, width, values.shape[3]), values.dtype)
    for rows in tiles(slice(0, length), chunk_size):
        q, k, v = queries[:, :, rows], keys[:, :, rows], values[:, :, rows]
        weights = np.tril(q @ k.swapaxes(2, 3))
        yield rows, q @ state + weights @ v
        state += k.swapaxes(2, 3) @ v
