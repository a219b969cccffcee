"""Boolean and additive masks as tensors, for kernels of our own and for libraries that take one."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from implementations.tiling import Band, Window

__all__ = ["attention_mask", "band_mask"]


def band_mask(band: Band, queries: slice, keys: slice, device: torch.device) -> Tensor:
    """Which of some keys some queries may attend to under causality and window, bool (queries, keys)."""
    rows = torch.arange(queries.start, queries.stop, device=device)
    columns = torch.arange(keys.start, keys.stop, device=device)
    distance = columns - rows[:, None]
    return (distance >= band.lowest) & (distance <= band.highest)


def attention_mask(q: Tensor, k: Tensor, mask: Tensor | None, bias: Tensor | None, causal: bool, window: Window) -> Tensor | None:
    """The options of attention as the one mask that a library takes, expanded to (B, Hq, Lq, Lk).

    Returns:
        None if everything is allowed; bool, True = may attend, if there is no bias; else a float to add to the logits, with
        -inf at what is not allowed.
    """
    queries, keys = q.shape[2], k.shape[2]
    combined = mask
    if causal or window is not None:
        band = band_mask(Band.of(queries, keys, causal, window), slice(0, queries), slice(0, keys), q.device)
        combined = band if mask is None else mask & band
    if bias is not None:
        combined = bias if combined is None else torch.where(combined, bias, -inf)
    return None if combined is None else combined.expand(*q.shape[:3], keys)
