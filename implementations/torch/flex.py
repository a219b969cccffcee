"""Adapters to `torch.nn.attention.flex_attention`: what moves a logit is a `score_mod`, what allows one a `mask_mod`.

Not compiled: the library then runs its own eager form, the same on every machine, at a tenth of a second or so a call.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from conformance import register
from implementations.tiling import Band, Window

__all__ = ["flex", "flex_with_lse"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
NO_KEYS = {"s > 0": "without keys it raises IndexError: max() over an empty axis"}

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _score_mod(q: Tensor, k: Tensor, bias: Tensor | None, softcap: float | None) -> ScoreMod:
    biases = None if bias is None else bias.expand(*q.shape[:3], k.shape[2])

    def score_mod(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        return score if biases is None else score + biases[batch, head, query, key]

    return score_mod


def _block_mask(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, window: Window) -> BlockMask | None:
    if mask is None and not causal and window is None:
        return None
    batches, heads, queries, _ = q.shape
    keys = k.shape[2]
    band = Band.of(queries, keys, causal, window)
    allowed = None if mask is None else mask.expand(batches, heads, queries, keys)

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = (key - query >= band.lowest) & (key - query <= band.highest)
        return inside if allowed is None else inside & allowed[batch, head, query, key]

    return create_block_mask(mask_mod, batches, heads, queries, keys, device=q.device)


@register(
    "attention",
    backend="torch",
    name="torch.flex",
    dtypes=DTYPES,
    restrictions={
        **NO_KEYS,
        "b * l > 0 or (mask is None and bias is None and window is None and not causal)": "without queries or batch, a "
        "score_mod or mask_mod that indexes a tensor, and create_block_mask itself, raise IndexError under vmap",
    },
    description="flex_attention, eager: options through score_mod and mask_mod",
)
def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> Tensor:
    """`flex_attention` (Dong et al. 2024, arXiv:2412.05496)."""
    return flex_attention(
        q,
        k,
        v,
        score_mod=_score_mod(q, k, bias, softcap),
        block_mask=_block_mask(q, k, mask, causal, window),
        scale=scale,
        enable_gqa=True,
    )


@register(
    "attention_with_lse",
    backend="torch",
    name="torch.flex_with_lse",
    dtypes=DTYPES,
    restrictions={**NO_KEYS, "b * l > 0": "without queries or batch the lse comes back as None"},
    description="flex_attention, eager, with AuxRequest(lse=True)",
)
def flex_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`flex`, and the logarithm of the denominator of each row; None where there are no rows."""
    out, auxiliary = flex_attention(
        q,
        k,
        v,
        score_mod=_score_mod(q, k, bias, softcap),
        block_mask=_block_mask(q, k, mask, causal, window),
        scale=scale,
        enable_gqa=True,
        return_aux=AuxRequest(lse=True),
    )
    return out, auxiliary.lse
