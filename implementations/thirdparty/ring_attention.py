"""ring-attention-pytorch in one process: its plain attention, and the pure PyTorch ring attention with a ring of one."""

from __future__ import annotations

import torch
from ring_attention_pytorch.ring_attention import default_attention
from ring_attention_pytorch.ring_flash_attention import ring_flash_attn
from torch import Tensor

from conformance import block_sizes, register

__all__ = ["plain", "ring"]

LAYOUT = "b l h d"
# Keys are repeated as "... h d -> ... (g h) d", so that query head h reads head h mod Hkv.
HEADS = {"head_map": "interleaved"}
WITHOUT_KEYS = {"s > 0": "at least one key", "l <= s or not causal": "documents nothing for queries that causality leaves without keys"}


@register(
    "attention",
    backend="torch",
    name="thirdparty.ring_attention_plain",
    layout=LAYOUT,
    conventions=HEADS,
    restrictions=WITHOUT_KEYS,
    description="ring-attention-pytorch: default_attention",
)
def plain(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, softcap: float | None = None) -> Tensor:
    """`default_attention`, with softclamp_qk_sim for a softcap."""
    clamped = {} if softcap is None else {"softclamp_qk_sim": True, "softclamp_value": float(softcap)}
    return default_attention(q, k, v, causal=causal, **clamped)


@register(
    "attention",
    backend="torch",
    name="thirdparty.ring_attention",
    layout=LAYOUT,
    conventions=HEADS,
    tunables={"block_k": block_sizes},
    restrictions={**WITHOUT_KEYS, "d == e": "keys and values are sent round the ring as one tensor"},
    description="ring-attention-pytorch: ring_flash_attn, one process",
)
def ring(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, softcap: float | None = None, block_k: int = 1024
) -> Tensor:  # fmt: skip
    """`ring_flash_attn` with buckets of `block_k` queries and keys; a ring of one process passes nothing on."""
    clamped = {} if softcap is None else {"softclamp_qk_sim": True, "softclamp_value": float(softcap)}
    with torch.no_grad():
        return ring_flash_attn(q, k, v, causal=causal, bucket_size=block_k, **clamped)
