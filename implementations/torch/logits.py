"""The logits of attention, a tile at a time: scale, softcap, bias and every way to disallow a key have their one home here."""

from __future__ import annotations

from math import inf, sqrt

import torch
from torch import Tensor

from implementations.tiling import Band, Window
from implementations.torch.masks import band_mask

__all__ = ["Logits", "grouped_matmul", "working_dtype"]


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype to compute in: float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def grouped_matmul(rows: Tensor, shared: Tensor) -> Tensor:
    """Multiply per query head with a matrix per key/value head: (B, Hq, L, N) x (B, Hkv, N, M) -> (B, Hq, L, M).

    The query heads of a group are consecutive. They are stacked as further rows of one product, so `shared` is never repeated.
    """
    batch, heads, length, inner = rows.shape
    groups, width = shared.shape[1], shared.shape[3]
    stacked = rows.reshape(batch, groups, heads // groups * length, inner)
    return torch.matmul(stacked, shared).reshape(batch, heads, length, width)


class Logits:
    """The logits of attention before softmax, computed where a kernel asks for them; -inf where a key is not allowed.

    Attributes:
        shape: (B, Hq, Lq, Lk), of all logits.
        dtype: the working dtype.
        device: of the inputs.
        band: which tiles can hold an allowed key at all.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        causal: bool,
        window: Window,
        softcap: float | None,
        scale: float | None,
    ) -> None:
        batch, heads, queries, width = q.shape
        keys = k.shape[2]
        self.shape = (batch, heads, queries, keys)
        self.dtype = working_dtype(q)
        self.device = q.device
        self.band = Band.of(queries, keys, causal, window)
        # The scale goes into the queries once rather than into every tile of logits.
        self._q = q.to(self.dtype) * (1 / sqrt(width) if scale is None else float(scale))
        self._k_transposed = k.to(self.dtype).mT  # (B, Hkv, D, Lk)
        self._mask = None if mask is None else mask.expand(self.shape)
        self._bias = None if bias is None else bias.expand(self.shape)
        self._softcap = None if softcap is None else float(softcap)

    def tile(self, queries: slice, keys: slice) -> Tensor:
        """The logits of some queries against some keys, (B, Hq, queries, keys)."""
        logits = grouped_matmul(self._q[:, :, queries], self._k_transposed[..., keys])
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        if self._bias is not None:
            logits = logits + self._bias[:, :, queries, keys].to(self.dtype)
        allowed = band_mask(self.band, queries, keys, self.device)
        if self._mask is not None:
            allowed = allowed & self._mask[:, :, queries, keys]
        # What stands in a disallowed key may have overflowed: it is replaced, not cancelled by adding -inf.
        return logits.masked_fill(~allowed, -inf)
