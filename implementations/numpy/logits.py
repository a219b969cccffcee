"""The logits of attention, a tile at a time: scale, softcap, bias and every way to disallow a key have their one home here."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implementations.tiling import Band, Window

__all__ = ["Array", "Logits", "grouped_matmul", "working_dtype"]

Array = NDArray[Any]


def working_dtype(x: Array) -> np.dtype[Any]:
    """The dtype to compute in: float64 for float64, float32 for everything narrower."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def grouped_matmul(rows: Array, shared: Array) -> Array:
    """Multiply per query head with a matrix per key/value head: (B, Hq, L, N) x (B, Hkv, N, M) -> (B, Hq, L, M).

    The query heads of a group are consecutive. They are stacked as further rows of one product, so `shared` is never repeated.
    """
    batch, heads, length, inner = rows.shape
    groups, width = shared.shape[1], shared.shape[3]
    stacked = rows.reshape(batch, groups, heads // groups * length, inner)
    product: Array = (stacked @ shared).reshape(batch, heads, length, width)
    return product


class Logits:
    """The logits of attention before softmax, computed where a kernel asks for them; -inf where a key is not allowed.

    Attributes:
        shape: (B, Hq, Lq, Lk), of all logits.
        dtype: the working dtype.
        band: which tiles can hold an allowed key at all.
    """

    def __init__(
        self,
        q: Array,
        k: Array,
        mask: Array | None,
        bias: Array | None,
        causal: bool,
        window: Window,
        softcap: float | None,
        scale: float | None,
    ) -> None:
        batch, heads, queries, width = q.shape
        keys = k.shape[2]
        self.shape = (batch, heads, queries, keys)
        self.dtype = working_dtype(q)
        self.band = Band.of(queries, keys, causal, window)
        # The scale goes into the queries once rather than into every tile of logits.
        self._q = q.astype(self.dtype) * (1 / sqrt(width) if scale is None else float(scale))
        self._k_transposed = k.astype(self.dtype, copy=False).swapaxes(2, 3)  # (B, Hkv, D, Lk)
        self._mask = None if mask is None else np.broadcast_to(mask, self.shape)
        self._bias = None if bias is None else np.broadcast_to(bias, self.shape)
        self._softcap = None if softcap is None else float(softcap)

    def tile(self, queries: slice, keys: slice) -> Array:
        """The logits of some queries against some keys, (B, Hq, queries, keys)."""
        # What stands in a disallowed key may overflow here; it is replaced below, not cancelled by adding -inf.
        with np.errstate(over="ignore", invalid="ignore"):
            logits = grouped_matmul(self._q[:, :, queries], self._k_transposed[..., keys])
            if self._softcap is not None:
                logits = self._softcap * np.tanh(logits / self._softcap)
            if self._bias is not None:
                logits = logits + self._bias[:, :, queries, keys].astype(self.dtype)
        if self._mask is not None or not self.band.holds(queries, keys):
            np.copyto(logits, -np.inf, where=~self._allowed(queries, keys))
        return logits

    def _allowed(self, queries: slice, keys: slice) -> Array:
        distance = np.arange(keys.start, keys.stop) - np.arange(queries.start, queries.stop)[:, None]
        allowed: Array = (distance >= self.band.lowest) & (distance <= self.band.highest)
        return allowed if self._mask is None else allowed & self._mask[:, :, queries, keys]
