"""x-transformers: the attention and the rotary embedding of its `Attend` and `RotaryEmbedding` modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from x_transformers.attend import Attend
from x_transformers.x_transformers import RotaryEmbedding, apply_rotary_pos_emb

from conformance import register

__all__ = ["attend", "attend_flash", "rotary"]

# `Attend` repeats grouped keys as "b kvh n d -> b (r kvh) n d", so that query head h reads head h mod Hkv.
HEADS = {"head_map": "interleaved"}
WITHOUT_KEYS = {"not causal or l <= s": "documents nothing for queries that causality leaves without keys"}


def _attended(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
    """Masks of two axes would be taken for paddings of keys."""
    with torch.no_grad():
        return module(q, k, v, mask=_with_all_axes(mask), attn_bias=_with_all_axes(bias))[0]


def _with_all_axes(x: Tensor | None) -> Tensor | None:
    return None if x is None else x[(None,) * (4 - x.ndim)]


@register(
    "attention",
    backend="torch",
    name="thirdparty.x_transformers",
    conventions={**HEADS, "softcap_order": "after-bias"},
    restrictions=WITHOUT_KEYS,
    description="x-transformers: Attend",
)
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """`Attend` with softclamp_logits for a softcap and head_learned_sink for sinks."""
    clamped = {} if softcap is None else {"softclamp_logits": True, "logit_softclamp_value": softcap}
    module = Attend(causal=causal, scale=scale, heads=q.shape[1], head_learned_sink=sinks is not None, **clamped)
    if sinks is not None:
        module.head_attn_sink = torch.nn.Parameter(sinks)
    return _attended(module, q, k, v, mask, bias)


@register(
    "attention",
    backend="torch",
    name="thirdparty.x_transformers_flash",
    conventions=HEADS,
    restrictions=WITHOUT_KEYS,
    description="x-transformers: Attend(flash=True)",
)
def attend_flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """`Attend(flash=True)`, which prepares a call of scaled_dot_product_attention."""
    return _attended(Attend(causal=causal, scale=scale, heads=q.shape[1], flash=True), q, k, v, mask, bias)


@register(
    "rotary_embedding",
    backend="torch",
    name="thirdparty.x_transformers_rotary",
    restrictions={"interleaved": "pairs are neighbours", "b > 0 and l > 0": "the largest position is looked for"},
    description="x-transformers: RotaryEmbedding, apply_rotary_pos_emb",
)
def rotary(
    x: Tensor, positions: Tensor, *, base: float = 10000.0, interleaved: bool = True, rotary_width: int | None = None
) -> Tensor:  # fmt: skip
    """Frequencies of `RotaryEmbedding`, by which `apply_rotary_pos_emb` turns the first columns."""
    module = RotaryEmbedding(x.shape[-1] if rotary_width is None else rotary_width, base=base)
    freqs, scale = module(positions)
    return apply_rotary_pos_emb(x, freqs, scale)
