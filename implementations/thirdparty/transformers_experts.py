"""transformers: routers of Mixtral, Qwen3-MoE and DeepSeek-V3, and the experts of Mixtral."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.mixtral.modeling_mixtral import MixtralExperts, MixtralTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from conformance import register

__all__ = ["experts", "mixtral_router", "qwen3_router", "v3_router"]

TOKENS = {"l > 0 and x > 0": "there are tokens and experts"}
# torch.topk says nothing about the order of equal elements.
TIES = {"ties": "any"}
SOFTMAX = {
    **TOKENS,
    "scoring == 'softmax' or scoring is None": "a softmax over all experts",
    "correction is None and groups is None": "neither corrections nor groups",
}


def _routed(router: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and weights; the matrix of the router is the identity, so that tokens are their own logits."""
    router.weight = nn.Parameter(torch.eye(logits.shape[1], dtype=logits.dtype))
    with torch.no_grad():
        _, weights, indices = router(logits)
    return indices, weights


@register(
    "moe_topk_gating",
    backend="torch",
    name="thirdparty.transformers_mixtral_router",
    conventions=TIES,
    restrictions={**SOFTMAX, "renormalize or renormalize is None": "weights are divided by their sum"},
    description="transformers: MixtralTopKRouter",
)
def mixtral_router(logits: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """`MixtralTopKRouter`."""
    size = logits.shape[1]
    return _routed(MixtralTopKRouter(SimpleNamespace(num_experts_per_tok=k, num_local_experts=size, hidden_size=size)), logits)


@register(
    "moe_topk_gating",
    backend="torch",
    name="thirdparty.transformers_qwen3_router",
    conventions=TIES,
    restrictions=SOFTMAX,
    description="transformers: Qwen3MoeTopKRouter",
)
def qwen3_router(logits: Tensor, *, k: int, renormalize: bool = True) -> tuple[Tensor, Tensor]:
    """`Qwen3MoeTopKRouter`."""
    size = logits.shape[1]
    config = SimpleNamespace(num_experts_per_tok=k, num_experts=size, hidden_size=size, norm_topk_prob=renormalize)
    return _routed(Qwen3MoeTopKRouter(config), logits)


@register(
    "moe_topk_gating",
    backend="torch",
    name="thirdparty.transformers_deepseek_v3_router",
    conventions={**TIES, "denominator": "sum+1e-20"},
    restrictions={
        **TOKENS,
        "scoring == 'sigmoid'": "affinities are sigmoids",
        "groups is not None and top_groups is not None": "experts are in groups",
        "x >= 2 * groups": "the score of a group is the sum of its two best experts",
    },
    description="transformers: DeepseekV3TopkRouter",
)
def v3_router(
    logits: Tensor,
    *,
    k: int,
    renormalize: bool = True,
    scoring: str = "sigmoid",
    correction: Tensor | None = None,
    groups: int = 1,
    top_groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """`DeepseekV3TopkRouter`, which returns experts in any order: they are put in that of their corrected scores here."""
    size = logits.shape[1]
    config = SimpleNamespace(
        num_experts_per_tok=k, num_local_experts=size, hidden_size=size, n_group=groups, topk_group=top_groups,
        norm_topk_prob=renormalize, routed_scaling_factor=1.0,
    )  # fmt: skip
    router = DeepseekV3TopkRouter(config)
    if correction is not None:
        router.e_score_correction_bias = correction
    indices, weights = _routed(router, logits)
    scores = (logits.sigmoid() + router.e_score_correction_bias).gather(1, indices)
    # Of equal scores the lower index first, as the method has it.
    order = indices.argsort(dim=1)
    order = order.gather(1, scores.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return indices.gather(1, order), weights.gather(1, order)


@register(
    "moe_layer",
    backend="torch",
    name="thirdparty.transformers_mixtral_experts",
    restrictions={
        "w_gate is not None": "experts are gated",
        "capacity is None": "every assignment counts",
        "shared_in is None and shared_gate is None": "no shared expert",
        "x > 0": "there are experts",
    },
    description="transformers: MixtralExperts",
)
def experts(
    hidden: Tensor, indices: Tensor, weights: Tensor, w_in: Tensor, w_out: Tensor, w_gate: Tensor | None = None, *, activation: str = "silu"
) -> Tensor:
    """`MixtralExperts`, whose gate and input matrices are one."""
    assert w_gate is not None, "no call leaves it out"
    count, width, inner = w_in.shape
    config = SimpleNamespace(num_local_experts=count, hidden_size=width, intermediate_size=inner, hidden_act=activation)
    config._experts_implementation = "eager"
    with torch.device("meta"):
        module = MixtralExperts(config)
    module.gate_up_proj = nn.Parameter(torch.cat([w_gate, w_in], dim=2).transpose(1, 2).contiguous())
    module.down_proj = nn.Parameter(w_out.transpose(1, 2).contiguous())
    with torch.no_grad():
        return module(hidden, indices, weights)
