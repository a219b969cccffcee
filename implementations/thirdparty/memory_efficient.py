"""memory-efficient-attention-pytorch: plain attention, attention in chunks (Rabe and Staats 2021), and flash attention in PyTorch."""

from __future__ import annotations

import torch
from memory_efficient_attention_pytorch.flash_attention import FlashAttentionFunction
from memory_efficient_attention_pytorch.memory_efficient_attention import attention as plain_attention
from memory_efficient_attention_pytorch.memory_efficient_attention import memory_efficient_attention
from torch import Tensor

from conformance import block_sizes, register

__all__ = ["chunked", "flash", "plain"]

HEADS = {"h == g": "one key/value head for each query head"}
WITHOUT_KEYS = {"s > 0": "at least one key", "l <= s or not causal": "documents nothing for queries that causality leaves without keys"}
TILES = {"block_q": block_sizes, "block_k": block_sizes}


@register(
    "attention",
    backend="torch",
    name="thirdparty.memory_efficient_plain",
    restrictions={**HEADS, **WITHOUT_KEYS},
    description="memory-efficient-attention-pytorch: attention",
)
def plain(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, causal: bool = False) -> Tensor:
    """`attention`, all logits at once."""
    return plain_attention(q, k, v, causal=causal, attn_bias=bias)


@register(
    "attention",
    backend="torch",
    name="thirdparty.memory_efficient_chunked",
    tunables=TILES,
    restrictions={**HEADS, **WITHOUT_KEYS, "bias_rank in (None, 4)": "the module's bias has all four axes"},
    description="memory-efficient-attention-pytorch: memory_efficient_attention",
)
def chunked(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, causal: bool = False, block_q: int = 512, block_k: int = 1024
) -> Tensor:
    """`memory_efficient_attention` with buckets of any size; a bias is expanded, as `AlibiPositionalBias` gives it for all pairs."""
    attn_bias = None if bias is None else bias.expand(*bias.shape[:2], q.shape[2], k.shape[2])
    return memory_efficient_attention(q, k, v, causal=causal, attn_bias=attn_bias, q_bucket_size=block_q, k_bucket_size=block_k)


@register(
    "attention",
    backend="torch",
    name="thirdparty.memory_efficient_flash",
    tunables=TILES,
    restrictions={**HEADS, **WITHOUT_KEYS, "d == e": "the output is made like the queries"},
    description="memory-efficient-attention-pytorch: FlashAttentionFunction",
)
def flash(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False, block_q: int = 512, block_k: int = 1024
) -> Tensor:
    """`FlashAttentionFunction`, with a mask of all four axes."""
    full = None if mask is None else mask.expand(*q.shape[:3], k.shape[2])
    with torch.no_grad():
        return FlashAttentionFunction.apply(q, k, v, full, causal, block_q, block_k)
