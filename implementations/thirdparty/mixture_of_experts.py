"""mixture-of-experts: its gating network for two experts."""

from __future__ import annotations

import torch
from mixture_of_experts.mixture_of_experts import Top2Gating
from torch import Tensor, nn

from conformance import register

__all__ = ["top2"]

RESTRICTIONS = {
    "scoring == 'softmax' or scoring is None": "a softmax over all experts",
    "correction is None and groups is None": "neither corrections nor groups",
    "renormalize or renormalize is None": "weights are divided by their sum",
    "l > 0": "there are tokens",
}


@register(
    "moe_topk_gating",
    backend="torch",
    name="thirdparty.mixture_of_experts",
    conventions={"ties": "any"},  # torch.topk says nothing about the order of equal elements
    restrictions={**RESTRICTIONS, "k == 2 and x >= 2": "two experts"},
    description="mixture-of-experts: Top2Gating",
)
def top2(logits: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """`Top2Gating` with the policy "all" and a capacity for all tokens; its shares are read back as indices and weights."""
    size = logits.shape[1]
    with torch.random.fork_rng(devices=[]):
        module = Top2Gating(size, size, second_policy_eval="all", capacity_factor_eval=float(size))
    module.w_gating = nn.Parameter(torch.eye(size))
    with torch.no_grad():
        shares = module.eval()(logits[None])[1]
    weights, indices = shares[0].sum(dim=-1).sort(dim=-1, descending=True, stable=True)
    return indices[:, :k], weights[:, :k]
