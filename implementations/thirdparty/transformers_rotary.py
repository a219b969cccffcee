"""transformers: rotary embeddings of Llama (halves) and of DeepSeek-V3 (neighbours, which it returns moved apart)."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.deepseek_v3.modeling_deepseek_v3 import apply_rotary_pos_emb_interleave
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from conformance import register

__all__ = ["halves", "neighbours"]

WIDTH = {"d > 0 and d % 2 == 0": "heads of an even width"}


def _angles(x: Tensor, positions: Tensor, base: float) -> tuple[Tensor, Tensor]:
    config = LlamaConfig(
        hidden_size=x.shape[3], num_attention_heads=1, head_dim=x.shape[3], rope_parameters={"rope_type": "default", "rope_theta": base}
    )
    return LlamaRotaryEmbedding(config)(x, positions)


@register(
    "rotary_embedding",
    backend="torch",
    name="thirdparty.transformers_rotary",
    restrictions=WIDTH,
    description="transformers: LlamaRotaryEmbedding, apply_rotary_pos_emb",
)
def halves(x: Tensor, positions: Tensor, *, base: float = 10000.0) -> Tensor:
    """Column i turns with column i + D / 2."""
    cos, sin = _angles(x, positions, base)
    return apply_rotary_pos_emb(x, x, cos, sin)[0]


@register(
    "rotary_embedding",
    backend="torch",
    name="thirdparty.transformers_rotary_interleaved",
    restrictions={**WIDTH, "interleaved": "pairs are neighbours"},
    description="transformers: apply_rotary_pos_emb_interleave of DeepSeek-V3",
)
def neighbours(x: Tensor, positions: Tensor, *, base: float = 10000.0, interleaved: bool = True) -> Tensor:
    """Column 2i turns with column 2i + 1; all first and all second ones are returned together, and are put back here."""
    cos, sin = _angles(x, positions, base)
    return torch.stack(apply_rotary_pos_emb_interleave(x, x, cos, sin)[0].chunk(2, dim=-1), dim=-1).flatten(-2)
