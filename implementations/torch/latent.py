"""Latent attention (MLA) in PyTorch, on any device.

Shapes: q_nope (B, H, Lq, Dn), q_rope (B, H, Lq, Dr), c_kv (B, Lk, R), k_rope (B, Lk, Dr), w_uk (H, R, Dn), w_uv (H, R, Dv)
-> (B, H, Lq, Dv).
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from conformance import register
from conformance.registry import block_sizes
from implementations.tiling import Band, tiles
from implementations.torch.devices import aligned
from implementations.torch.features import rounded
from implementations.torch.logits import working_dtype
from implementations.torch.masks import attention_mask, band_mask
from implementations.torch.sdpa import KEYS_IN_FLOAT16
from implementations.torch.softmax import normalised, row_shift

__all__ = ["latent_absorbed", "latent_sdpa"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


@register(
    "latent_attention", backend="torch", name="torch.latent_sdpa", dtypes=DTYPES, restrictions=KEYS_IN_FLOAT16,
    description="keys and values expanded in the storage dtype, F.scaled_dot_product_attention over both parts",
)  # fmt: skip
def latent_sdpa(
    q_nope: Tensor,
    q_rope: Tensor,
    c_kv: Tensor,
    k_rope: Tensor,
    w_uk: Tensor,
    w_uv: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """As a model prefills (DeepSeek-AI 2024, eq. 9-19, arXiv:2405.04434)."""
    dtype, heads = working_dtype(q_nope), q_nope.shape[1]
    rows = c_kv.to(dtype)[:, None]
    keys = torch.cat([(rows @ w_uk.to(dtype)).to(q_nope.dtype), k_rope[:, None].expand(-1, heads, -1, -1)], dim=3)
    values = (rows @ w_uv.to(dtype)).to(q_nope.dtype)
    queries = torch.cat([q_nope, q_rope], dim=3)
    scale = queries.shape[3] ** -0.5 if scale is None else scale
    mask = attention_mask(queries, keys, None, None, causal, None)
    return scaled_dot_product_attention(queries, keys, aligned(values), attn_mask=mask, scale=scale)


@register(
    "latent_attention", backend="torch", name="torch.latent_absorbed", dtypes=DTYPES, tunables={"block_q": block_sizes},
    description="absorbed: both parts of the logits apart, factors of products in the storage dtype",
)  # fmt: skip
def latent_absorbed(
    q_nope: Tensor,
    q_rope: Tensor,
    c_kv: Tensor,
    k_rope: Tensor,
    w_uk: Tensor,
    w_uv: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    block_q: int = 128,
) -> Tensor:
    """As a model decodes: nothing of a head is ever as long as the cache but its weights."""
    dtype, (_, _, queries, width) = working_dtype(q_nope), q_nope.shape
    cache, positions = c_kv.to(dtype), k_rope.to(dtype)
    absorbed = rounded(torch.einsum("bhld,hcd->bhlc", q_nope.to(dtype), w_uk.to(dtype)), q_nope)
    scale = (width + q_rope.shape[3]) ** -0.5 if scale is None else scale
    band = Band.of(queries, c_kv.shape[1], causal, None)
    gathered = []
    for rows in tiles(slice(0, queries), block_q):
        logits = torch.einsum("bhlc,bsc->bhls", absorbed[:, :, rows], cache)
        logits = (logits + torch.einsum("bhlr,bsr->bhls", q_rope[:, :, rows].to(dtype), positions)) * scale
        logits = logits.masked_fill(~band_mask(band, rows, slice(0, c_kv.shape[1]), q_nope.device), -inf)
        weights = torch.exp(logits - row_shift(logits.amax(dim=3, keepdim=True))) if c_kv.shape[1] else logits
        total = weights.sum(dim=3, keepdim=True)
        gathered.append(normalised(torch.einsum("bhls,bsc->bhlc", rounded(weights, q_nope), cache), total))
    latent = torch.cat(gathered, dim=2) if gathered else cache.new_zeros((*q_nope.shape[:3], c_kv.shape[2]))
    return torch.einsum("bhlc,hce->bhle", rounded(latent, q_nope), w_uv.to(dtype)).to(q_nope.dtype)
