"""Softmax by parts: the running maximum and denominator that tiled kernels share (Milakov & Gimelshein, arXiv:1805.02867).

A sink is a key with a logit of its own and a value of zeros, so it is where a row starts: no sink is a sink of -inf.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from implementations.numpy.logits import Array, Logits, grouped_matmul

__all__ = ["OnlineSoftmax", "log_denominator", "merge_states", "normalised", "row_shift", "sink_column"]


def row_shift(maximum: Array) -> Array:
    """The row maximum as a shift of the exponent: 0 in a row without any key, where (-inf) - (-inf) would be NaN."""
    return np.where(np.isneginf(maximum), 0.0, maximum)


def normalised(weighted: Array, total: Array) -> Array:
    """Weighted values over the denominator; zeros where there is nothing to divide by."""
    return weighted / np.where(total == 0, 1.0, total)


def log_denominator(maximum: Array, total: Array) -> Array:
    """The logarithm of the denominator that was summed under a shift by `maximum`: -inf for an empty row."""
    with np.errstate(divide="ignore"):
        lse: Array = maximum + np.log(total)
    return lse


def sink_column(sinks: Array | None, logits: Logits) -> Array:
    """The sinks as the logits of one more key, (Hq, 1, 1)."""
    if sinks is None:
        return np.full((logits.shape[1], 1, 1), -np.inf, logits.dtype)
    return sinks.astype(logits.dtype)[:, None, None]


class OnlineSoftmax:
    """Rows of attention that see their keys a tile at a time, in any order, and are normalised once at the end.

    Attributes:
        maximum: largest logit so far, (B, Hq, L, 1).
        total: denominator so far, shifted by `maximum`, (B, Hq, L, 1).
        weighted: numerator so far, shifted by `maximum`, (B, Hq, L, Dv).
    """

    def __init__(self, rows: tuple[int, int, int], width: int, sink: Array) -> None:
        self.maximum: Array = np.broadcast_to(sink, (*rows, 1))
        self.total: Array = np.exp(self.maximum - row_shift(self.maximum))
        self.weighted: Array = np.zeros((*rows, width), sink.dtype)

    def update(self, logits: Array, values: Array) -> None:
        """Take in one tile of keys: its logits (B, Hq, L, keys), which are overwritten, and its values (B, Hkv, keys, Dv)."""
        maximum = np.maximum(self.maximum, logits.max(axis=-1, keepdims=True))
        shift = row_shift(maximum)
        weights = np.exp(np.subtract(logits, shift, out=logits), out=logits)
        decay = np.exp(self.maximum - shift)
        self.maximum = maximum
        self.total = decay * self.total + weights.sum(axis=-1, keepdims=True)
        self.weighted = decay * self.weighted + grouped_matmul(weights, values)

    def result(self) -> tuple[Array, Array]:
        """The output (B, Hq, L, Dv) and the logarithm of the denominator (B, Hq, L)."""
        return normalised(self.weighted, self.total), log_denominator(self.maximum, self.total)[..., 0]


def merge_states(states: Iterable[tuple[Array, Array]], empty: tuple[Array, Array]) -> tuple[Array, Array]:
    """Combine normalised parts (out, lse) over disjoint keys as they arrive, as a ring or a split does; only one is held at a time.

    Args:
        states: output (..., Dv) and lse (...) of each part.
        empty: a part without keys, to start from; its lse is -inf, or the sink, which must join only once.
    """
    weighted, maximum = empty
    total = np.exp(maximum - row_shift(maximum))
    for out, lse in states:
        highest = np.maximum(maximum, lse)
        shift = row_shift(highest)
        decay, weight = np.exp(maximum - shift), np.exp(lse - shift)
        maximum, total = highest, decay * total + weight
        # Many kernels never write the output of an empty part, so its weight of 0 must select rather than multiply.
        out = np.where(weight[..., None] > 0, out, 0.0)
        weighted = decay[..., None] * weighted + weight[..., None] * out
    return normalised(weighted, total[..., None]), log_denominator(maximum, total)
