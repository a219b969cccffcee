"""linformer: its self-attention, given queries, keys and values instead of what it projects them from."""

from __future__ import annotations

import torch
from linformer import LinformerSelfAttention
from torch import Tensor, nn

from conformance import register
from implementations.thirdparty.given import Given

__all__ = ["linformer"]


def _joined(x: Tensor) -> Tensor:
    """(B, H, L, D) as (B, L, H D)."""
    return x.transpose(1, 2).flatten(2)


@register(
    "linformer_attention",
    backend="torch",
    name="thirdparty.linformer",
    restrictions={"d == w": "one width of heads", "d > 0 and h > 0": "heads have a width", "s > 0 and l > 0 and b > 0": "there are tokens"},
    description="linformer: LinformerSelfAttention",
)
def linformer(q: Tensor, k: Tensor, v: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """`LinformerSelfAttention` with e and f as its projections along the sequence, and none along the features."""
    _, heads, length, width = q.shape
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module = LinformerSelfAttention(heads * width, k.shape[2], k=e.shape[0], heads=heads)
        module.to_q, module.to_k, module.to_v = Given(_joined(q)), Given(_joined(k)), Given(_joined(v))
        module.to_out = nn.Identity()
        module.proj_k, module.proj_v = nn.Parameter(e.T), nn.Parameter(f.T)
        out = module(_joined(q), context=_joined(k))
    return out.reshape(q.shape[0], length, heads, width).transpose(1, 2)
