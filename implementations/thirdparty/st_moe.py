"""st-moe-pytorch: its gating network for any number of experts."""

from __future__ import annotations

import torch
from st_moe_pytorch.st_moe_pytorch import TopNGating
from torch import Tensor, nn

from conformance import register

__all__ = ["top_n"]

RESTRICTIONS = {
    "scoring == 'softmax' or scoring is None": "a softmax over all experts",
    "correction is None and groups is None": "neither corrections nor groups",
    "renormalize or renormalize is None": "weights are divided by their sum",
    "l > 0": "there are tokens",
    "k >= 2": "two or more experts",
}


@register(
    "moe_topk_gating",
    backend="torch",
    name="thirdparty.st_moe",
    conventions={"ties": "any"},  # torch.topk says nothing about the order of equal elements
    restrictions=RESTRICTIONS,
    description="st-moe-pytorch: TopNGating",
)
def top_n(logits: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """`TopNGating` with a capacity for all tokens; its shares are read back as indices and weights.

    Experts are left out at random where their weight is less than a threshold, which is at least eps: both are as small as can be.
    """
    size = logits.shape[1]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module = TopNGating(size, size, top_n=k, threshold_eval=0.0, eps=1e-38, capacity_factor_eval=float(size)).eval()
        module.to_gates.weight = nn.Parameter(torch.eye(size))
        shares = module(logits[None])[1]
    weights, indices = shares[0].sum(dim=-1).sort(dim=-1, descending=True, stable=True)
    return indices[:, :k], weights[:, :k]
