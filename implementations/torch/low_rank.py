"""Linformer attention in PyTorch, on any device.

Shapes: q (B, H, Lq, D), k (B, H, Lk, D), v (B, H, Lk, Dv), e and f (Lp, Lk) -> (B, H, Lq, Dv).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from conformance import register
from conformance.registry import block_sizes
from implementations.torch.devices import aligned
from implementations.torch.features import rounded
from implementations.torch.logits import working_dtype

__all__ = ["linformer", "linformer_sdpa"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


@register(
    "linformer_attention", backend="torch", name="torch.linformer", dtypes=DTYPES, tunables={"block_q": block_sizes},
    description="projected in the storage dtype, tiles of queries",
)  # fmt: skip
def linformer(q: Tensor, k: Tensor, v: Tensor, e: Tensor, f: Tensor, *, scale: float | None = None, block_q: int = 128) -> Tensor:
    """Projected keys and values are rounded as matrix units read them (Wang et al. 2020, eq. 7, arXiv:2006.04768)."""
    dtype = working_dtype(q)
    keys, values = rounded(e.to(dtype) @ k.to(dtype), q), rounded(f.to(dtype) @ v.to(dtype), q)
    scale = max(q.shape[3], 1) ** -0.5 if scale is None else scale
    parts = []
    for rows in torch.split(q.to(dtype), block_q, dim=2):
        logits = rows @ keys.mT * scale
        weights = torch.exp(logits - torch.logsumexp(logits, dim=3, keepdim=True))
        parts.append(weights @ values)
    return torch.cat(parts, dim=2).to(q.dtype)


@register(
    "linformer_attention",
    backend="torch",
    name="torch.linformer_sdpa",
    dtypes=DTYPES,
    description="projected, then PyTorch's own attention",
)
def linformer_sdpa(q: Tensor, k: Tensor, v: Tensor, e: Tensor, f: Tensor, *, scale: float | None = None) -> Tensor:
    """Both projections as one stacked product, then scaled_dot_product_attention over the projected keys."""
    dtype, width = working_dtype(q), max(q.shape[3], 1)
    keys, values = torch.matmul(e.to(dtype), k.to(dtype)), torch.matmul(f.to(dtype), v.to(dtype))
    scale = width**-0.5 if scale is None else scale
    return functional.scaled_dot_product_attention(aligned(q.to(dtype)), keys, values, scale=scale).to(q.dtype)
