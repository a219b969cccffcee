"""Softmax by parts: the running maximum and denominator that tiled kernels share (Milakov & Gimelshein, arXiv:1805.02867).

A sink is a key with a logit of its own and a value of zeros, so it is where a row starts: no sink is a sink of -inf.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from implementations.torch.logits import Logits, grouped_matmul

__all__ = ["OnlineSoftmax", "merge_states", "normalised", "row_shift", "sink_column"]


def row_shift(maximum: Tensor) -> Tensor:
    """The row maximum as a shift of the exponent: 0 in a row without any key, where (-inf) - (-inf) would be NaN."""
    return maximum.masked_fill(torch.isneginf(maximum), 0.0)


def normalised(weighted: Tensor, total: Tensor) -> Tensor:
    """Weighted values over the denominator; zeros where there is nothing to divide by."""
    return weighted / total.masked_fill(total == 0, 1.0)


def sink_column(sinks: Tensor | None, logits: Logits) -> Tensor:
    """The sinks as the logits of one more key, (Hq, 1, 1)."""
    if sinks is None:
        return torch.full((logits.shape[1], 1, 1), -inf, dtype=logits.dtype, device=logits.device)
    return sinks.to(logits.dtype)[:, None, None]


class OnlineSoftmax:
    """Rows of attention that see their keys a tile at a time, in any order, and are normalised once at the end.

    Attributes:
        maximum: largest logit so far, (B, Hq, L, 1).
        total: denominator so far, shifted by `maximum`, (B, Hq, L, 1).
        weighted: numerator so far, shifted by `maximum`, (B, Hq, L, Dv).
    """

    def __init__(self, rows: tuple[int, int, int], width: int, sink: Tensor) -> None:
        self.maximum = sink.expand(*rows, 1)
        self.total = torch.exp(self.maximum - row_shift(self.maximum))
        self.weighted = sink.new_zeros(*rows, width)

    def update(self, logits: Tensor, values: Tensor) -> None:
        """Take in one tile of keys: its logits (B, Hq, L, keys) and its values (B, Hkv, keys, Dv)."""
        maximum = torch.maximum(self.maximum, logits.amax(dim=-1, keepdim=True))
        shift = row_shift(maximum)
        weights = torch.exp(logits - shift)
        decay = torch.exp(self.maximum - shift)
        self.maximum = maximum
        self.total = decay * self.total + weights.sum(dim=-1, keepdim=True)
        self.weighted = decay * self.weighted + grouped_matmul(weights, values)

    def result(self) -> tuple[Tensor, Tensor]:
        """The output (B, Hq, L, Dv) and the logarithm of the denominator (B, Hq, L), -inf for an empty row."""
        return normalised(self.weighted, self.total), (self.maximum + torch.log(self.total))[..., 0]


def merge_states(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Combine normalised parts over disjoint keys, outs (N, ..., Dv) and lses (N, ...), in one reduction over the parts."""
    empty = torch.isneginf(lses)
    weights = torch.softmax(lses, dim=0).masked_fill(empty, 0.0)  # softmax alone is NaN where every part is empty
    # Many kernels never write the output of an empty part, so its weight of 0 must select rather than multiply.
    outs = outs.masked_fill(empty[..., None], 0.0)
    return (weights[..., None] * outs).sum(dim=0), torch.logsumexp(lses, dim=0)
