"""Routers in PyTorch: by `torch.topk` with ties put right, and without any sort, by counting who comes before whom.

`torch.topk` says nothing about the order of equal elements. The first of these adds what decides it: it ranks whole numbers that
order the scores and, among equal ones, the experts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from conformance import block_sizes, register
from implementations.torch.logits import working_dtype

__all__ = ["route_by_counting", "route_by_topk"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
EVERY = {"block_tokens": block_sizes}


def check_router(logits: Tensor, k: int, groups: int, top_groups: int) -> None:
    """Raise `ValueError` for what has no answer."""
    experts = logits.shape[1]
    if not 1 <= k <= experts:
        raise ValueError(f"k={k}, but should be at least 1 and at most the number of experts {experts}")
    if experts % groups or not 1 <= top_groups <= groups or k > experts // groups * top_groups:
        raise ValueError(f"groups={groups} and top_groups={top_groups} do not fit {experts} experts of which {k} are chosen")
    if not torch.isfinite(logits).all():
        raise ValueError("some logit is NaN or infinite, which has no rank")


def _affinities(logits: Tensor, scoring: str) -> Tensor:
    return torch.sigmoid(logits) if scoring == "sigmoid" else torch.softmax(logits, dim=-1)


def _places(scores: Tensor) -> Tensor:
    """Which place every score of a row takes, counted from 0; of equal ones the first comes first."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.argsort(order, dim=-1)


def _hidden_experts(scores: Tensor, groups: int, top_groups: int) -> Tensor:
    """Experts of groups that do not take part, bool."""
    split = scores.reshape(len(scores), groups, scores.shape[1] // groups)
    best = split.topk(min(2, split.shape[2]), dim=2).values.sum(dim=2)
    return (_places(best) >= top_groups)[..., None].expand_as(split).flatten(1)


@register("moe_topk_gating", backend="torch", name="torch.route_by_topk", dtypes=DTYPES, tunables=EVERY,
          description="torch.topk of the places that a stable sort gives")  # fmt: skip
def route_by_topk(
    logits: Tensor, k: int, *, renormalize: bool = True, scoring: str = "softmax", correction: Tensor | None = None, groups: int = 1,
    top_groups: int = 1, block_tokens: int = 128,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Blocks of tokens at a time."""
    check_router(logits, k, groups, top_groups)
    dtype, indices, weights = working_dtype(logits), [], []
    for part in torch.split(logits, block_tokens) if len(logits) else [logits]:
        affinities = _affinities(part.to(dtype), scoring)
        scores = affinities if correction is None else affinities + correction.to(dtype)
        if top_groups < groups:
            scores = scores.masked_fill(_hidden_experts(scores, groups, top_groups), -torch.inf)
        chosen = torch.topk(-_places(scores), k, dim=-1).indices
        taken = affinities.gather(1, chosen)
        indices.append(chosen)
        weights.append(taken / taken.sum(dim=1, keepdim=True) if renormalize else taken)
    return torch.cat(indices), torch.cat(weights).to(logits.dtype)


@register("moe_topk_gating", backend="torch", name="torch.route_by_counting", dtypes=DTYPES,
          description="how many experts come before each, without a sort, and one-hot products for indices and weights")  # fmt: skip
def route_by_counting(
    logits: Tensor, k: int, *, renormalize: bool = True, scoring: str = "softmax", correction: Tensor | None = None, groups: int = 1,
    top_groups: int = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A matrix of comparisons for every token."""
    check_router(logits, k, groups, top_groups)
    dtype, experts = working_dtype(logits), logits.shape[1]
    affinities = _affinities(logits.to(dtype), scoring)
    scores = affinities if correction is None else affinities + correction.to(dtype)
    if top_groups < groups:
        scores = scores.masked_fill(_hidden_experts(scores, groups, top_groups), -torch.inf)
    number = torch.arange(experts, device=logits.device)
    ahead = (scores[:, :, None] > scores[:, None, :]) | ((scores[:, :, None] == scores[:, None, :]) & (number[:, None] < number))
    place = ahead.sum(dim=1)  # (T, E)
    hot = one_hot(place.clamp(max=k), k + 1)[..., :k].to(dtype)  # (T, E, k)
    indices = torch.einsum("tek,e->tk", hot, number.to(dtype)).to(torch.int32)
    weights = torch.einsum("tek,te->tk", hot, affinities)
    weights = weights / weights.sum(dim=1, keepdim=True) if renormalize else weights
    return indices, weights.to(logits.dtype)
