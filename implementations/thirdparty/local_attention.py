"""local-attention: windows of exact size, with padding to whole windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from local_attention import LocalAttention
from torch import Tensor

from conformance import register

__all__ = ["local", "local_with_mask"]

RESTRICTIONS = {
    "window > 0": "windows of at least one token",
    "global_tokens == ()": "no global tokens",
    "h == g": "one key/value head for each query head",
    "b > 0 and h > 0 and l > 0": "at least one token",
}


def _windowed(q: Tensor, k: Tensor, v: Tensor, window: int, causal: bool, scale: float | None, mask: Tensor | None) -> Tensor:
    module = LocalAttention(window, causal=causal, autopad=True, exact_windowsize=True, scale=scale, use_rotary_pos_emb=False)
    return module(q, k, v, mask=mask)


@register(
    "local_global_attention",
    backend="torch",
    name="thirdparty.local_attention",
    restrictions=RESTRICTIONS,
    description="local-attention: LocalAttention(autopad=True, exact_windowsize=True)",
)
def local(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, global_tokens: Sequence[int], causal: bool = False, scale: float | None = None
) -> Tensor:
    """`LocalAttention` that looks one window back and, without causality, one ahead: `window` keys to either side."""
    return _windowed(q, k, v, window, causal, scale, None)


@register(
    "local_global_attention",
    backend="torch",
    name="thirdparty.local_attention_with_mask",
    restrictions=RESTRICTIONS,
    description="local-attention: the same with a mask of all tokens",
)
def local_with_mask(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, global_tokens: Sequence[int], causal: bool = False, scale: float | None = None
) -> Tensor:
    """As `local`, called with a mask that hides nothing."""
    return _windowed(q, k, v, window, causal, scale, torch.ones(q.shape[0], q.shape[2], dtype=torch.bool))
