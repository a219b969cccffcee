"""Differential attention in PyTorch, on any device.

Shapes: q1 and q2 (B, Hq, Lq, D), k1 and k2 (B, Hkv, Lk, D), v and v2 (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from conformance import register
from conformance.registry import block_sizes
from implementations.tiling import tiles
from implementations.torch.devices import aligned
from implementations.torch.features import rounded
from implementations.torch.logits import Logits, grouped_matmul
from implementations.torch.masks import attention_mask
from implementations.torch.sdpa import KEYS_IN_FLOAT16
from implementations.torch.softmax import normalised, row_shift

__all__ = ["differential_doubled_heads", "differential_sdpa"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _finished(out: Tensor, lam_init: float | None, eps: float) -> Tensor:
    """The head norm, if there is one: each row over its root mean square, times 1 - lam_init (Ye et al. 2024, eq. 3)."""
    return out if lam_init is None else rms_norm(out, out.shape[3:], eps=eps) * (1 - lam_init)


@register(
    "differential_attention", backend="torch", name="torch.differential", dtypes=DTYPES, tunables={"block_q": block_sizes},
    description="both maps as heads of one attention, weights in the storage dtype",
)  # fmt: skip
def differential_doubled_heads(
    q1: Tensor,
    k1: Tensor,
    q2: Tensor,
    k2: Tensor,
    v: Tensor,
    *,
    lam: float,
    v2: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    lam_init: float | None = None,
    eps: float = 1e-5,
    block_q: int = 128,
) -> Tensor:
    """Twice as many heads, as models store them; each tile of queries is normalised and subtracted at once."""
    heads, queries, keys = q1.shape[1], q1.shape[2], k1.shape[2]
    logits = Logits(torch.cat([q1, q2], dim=1), torch.cat([k1, k2], dim=1), None, None, causal, None, None, scale)
    values = torch.cat([v, v if v2 is None else v2], dim=1).to(logits.dtype)
    parts = []
    for rows in tiles(slice(0, queries), block_q):
        scores = logits.tile(rows, slice(0, keys))
        shift = row_shift(scores.amax(dim=3, keepdim=True)) if keys else 0.0
        weights = torch.exp(scores - shift)
        weights = rounded(normalised(weights, weights.sum(dim=3, keepdim=True)), q1)
        both = grouped_matmul(weights, values)
        parts.append(_finished(both[:, :heads] - lam * both[:, heads:], lam_init, eps))
    out = torch.cat(parts, dim=2) if parts else values.new_zeros((*q1.shape[:3], v.shape[3]))
    return out.to(v.dtype)


@register(
    "differential_attention", backend="torch", name="torch.differential_sdpa", dtypes=DTYPES, restrictions=KEYS_IN_FLOAT16,
    description="two calls of F.scaled_dot_product_attention, subtracted in the storage dtype",
)  # fmt: skip
def differential_sdpa(
    q1: Tensor,
    k1: Tensor,
    q2: Tensor,
    k2: Tensor,
    v: Tensor,
    *,
    lam: float,
    v2: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    lam_init: float | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """What a model does that has a fused attention and no kernel of its own: both results are rounded before they meet."""
    first, second = (
        scaled_dot_product_attention(
            aligned(q), aligned(k), aligned(x), attn_mask=attention_mask(q, k, None, None, causal, None), scale=scale, enable_gqa=True
        )
        for q, k, x in ((q1, k1, v), (q2, k2, v if v2 is None else v2))
    )
    return _finished(first - lam * second, lam_init, eps).to(v.dtype)
