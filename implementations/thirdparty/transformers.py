"""transformers: the attention functions of its models, called as the models call them.

A mask, causality and a window reach them as one mask of four axes, which eager functions add to the logits: 0 where a query may
attend, the smallest finite number where not (`transformers.masking_utils.eager_mask`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as gemma2_forward
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as gpt_oss_forward
from transformers.models.llama.modeling_llama import eager_attention_forward as llama_forward

from conformance import register
from implementations.thirdparty.given import Given
from implementations.tiling import Window
from implementations.torch.masks import attention_mask

__all__ = ["eager", "eager_sinks", "eager_softcap", "latent", "sdpa"]

# A row all of whose logits are the smallest finite number has equal weights.
HIDDEN = {"empty_row": "mean"}
KEYS = {"s > 0": "models have at least one key"}


def _module(q: Tensor, k: Tensor, **more: Any) -> Any:
    """What the functions read of the module that calls them."""
    return SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], head_dim=q.shape[3], training=False, is_causal=False, **more)


def _additive(
    q: Tensor, k: Tensor, mask: Tensor | None, bias: Tensor | None, causal: bool, window: Window = None
) -> Tensor | None:  # fmt: skip
    allowed = attention_mask(q, k, mask, None, causal, window)
    if allowed is None:
        return bias
    smallest = torch.finfo(q.dtype).min
    return torch.where(allowed, 0.0 if bias is None else bias, smallest).to(q.dtype)


def _scaling(q: Tensor, scale: float | None) -> float:
    return q.shape[3] ** -0.5 if scale is None else scale


@register(
    "attention",
    backend="torch",
    name="thirdparty.transformers_eager",
    conventions=HIDDEN,
    restrictions={**KEYS, "d > 0 or scale is not None": "1 / sqrt(0)"},
    description="transformers: eager_attention_forward of Llama",
)
def eager(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
) -> Tensor:
    """`eager_attention_forward` of Llama, Mistral, Qwen and others."""
    added = _additive(q, k, mask, bias, causal, window)
    return llama_forward(_module(q, k), q, k, v, added, scaling=_scaling(q, scale))[0].transpose(1, 2)


@register(
    "attention",
    backend="torch",
    name="thirdparty.transformers_eager_softcap",
    conventions=HIDDEN,
    restrictions={**KEYS, "d > 0 or scale is not None": "1 / sqrt(0)"},
    description="transformers: eager_attention_forward of Gemma 2",
)
def eager_softcap(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> Tensor:
    """`eager_attention_forward` of Gemma 2, with a softcap."""
    added = _additive(q, k, mask, None, causal, window)
    return gemma2_forward(_module(q, k), q, k, v, added, scaling=scale, softcap=softcap)[0].transpose(1, 2)


@register(
    "attention",
    backend="torch",
    name="thirdparty.transformers_eager_sinks",
    restrictions={
        "sinks is not None": "every head has a sink",
        "s > 0": "models have at least one key",
        "d > 0 or scale is not None": "1 / sqrt(0)",
    },
    description="transformers: eager_attention_forward of GPT-OSS",
)
def eager_sinks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """`eager_attention_forward` of GPT-OSS, with a sink for each head."""
    added = _additive(q, k, mask, None, causal, window)
    return gpt_oss_forward(_module(q, k, sinks=sinks), q, k, v, added, scaling=_scaling(q, scale))[0].transpose(1, 2)


@register(
    "attention",
    backend="torch",
    name="thirdparty.transformers_sdpa",
    restrictions={
        "b > 0 and h > 0 and l > 0 and s > 0 and d > 0 and e > 0": "there is something to attend to",
        "bias_rank in (None, 4)": "position biases have four axes",
    },
    description="transformers: sdpa_attention_forward",
)
def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
) -> Tensor:
    """`sdpa_attention_forward` with a boolean mask, and a bias as its position_bias; causality and windows are in the mask."""
    allowed = attention_mask(q, k, mask, None, causal, window)
    return sdpa_attention_forward(_module(q, k), q, k, v, allowed, scaling=scale, position_bias=bias)[0].transpose(1, 2)


@register(
    "latent_attention",
    backend="torch",
    name="thirdparty.transformers_deepseek_v3",
    restrictions={
        "l == s": "queries and latent rows are made of the same tokens",
        "b > 0 and l > 0 and h > 0 and c > 0": "there is something to attend to",
        "r % 2 == 0 and r > 0 and d > 0 and e > 0": "heads have a width, an even one where they are turned",
    },
    description="transformers: DeepseekV3Attention",
)
def latent(
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
    """`DeepseekV3Attention` that gets queries and latent rows in the place of its projections, at rotary angles of 0."""
    (batch, heads, length, nope), rope, rank = q_nope.shape, q_rope.shape[3], c_kv.shape[2]
    config = DeepseekV3Config(
        hidden_size=1, num_attention_heads=heads, num_key_value_heads=heads, q_lora_rank=None, kv_lora_rank=rank,
        qk_rope_head_dim=rope, qk_nope_head_dim=nope, v_head_dim=w_uv.shape[2], rope_interleave=False,
    )  # fmt: skip
    config._attn_implementation = "eager"
    with torch.device("meta"):
        module = DeepseekV3Attention(config, layer_idx=0).eval()
    module.q_proj = Given(torch.cat([q_nope, q_rope], dim=-1).transpose(1, 2).flatten(2))
    module.kv_a_proj_with_mqa = Given(torch.cat([c_kv, k_rope], dim=-1))
    module.kv_a_layernorm, module.o_proj = nn.Identity(), nn.Identity()
    module.kv_b_proj = nn.Linear(rank, heads * (nope + w_uv.shape[2]), bias=False, device="meta")
    module.kv_b_proj.weight = nn.Parameter(torch.cat([w_uk, w_uv], dim=2).transpose(1, 2).flatten(0, 1).contiguous())
    if scale is not None:
        module.scaling = scale
    angles = (q_rope.new_ones(1, length, rope), q_rope.new_zeros(1, length, rope))
    added = _additive(q_nope, c_kv[:, None], None, None, causal)
    with torch.no_grad():
        out = module(q_nope.new_empty(batch, length, 1), angles, added)[0]
    return out.reshape(batch, length, heads, w_uv.shape[2]).transpose(1, 2)
