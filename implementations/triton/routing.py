"""A router in Triton: softmax or sigmoids, groups of experts, and the best k by k rounds of a maximum."""

from __future__ import annotations

from implementations.triton.interpreter import kernel, present, register_kernel, small, stored_dtype  # isort: skip  (before Triton)

import torch
import triton
import triton.language as tl
from torch import Tensor

from implementations.torch.routing import check_router
from implementations.triton.exponential import exp, sigmoid

__all__ = ["route"]


@triton.jit
def _best(scores, candidates, numbers, BEYOND: tl.constexpr):
    """The largest score of each row's candidates and its number, the lowest of equal ones; BEYOND where there are none."""
    largest = tl.max(tl.where(candidates, scores, float("-inf")), 1)
    return largest, tl.min(tl.where(candidates & (scores == largest[:, None]), numbers, BEYOND), 1)


@kernel
def _route(
    LOGITS, CORRECTION, INDICES, WEIGHTS, x_t, x_e, c_e, i_t, w_t, tokens, experts, k, groups, top_groups, size,
    SIGMOID: tl.constexpr, HAS_CORRECTION: tl.constexpr, GROUPED: tl.constexpr, RENORMALIZE: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Some tokens, all experts."""
    t, x, c = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_X)[None, :], tl.arange(0, BLOCK_C)[None, :]
    some, real = t[:, None] < tokens, x < experts
    logits = tl.load(LOGITS + t[:, None] * x_t + x * x_e, mask=some & real, other=0.0).to(tl.float32)
    if SIGMOID:
        affinities = sigmoid(logits)
    else:
        shifted = tl.where(real, logits, float("-inf"))
        powers = exp(shifted - tl.max(shifted, 1)[:, None])
        affinities = powers / tl.sum(powers, 1)[:, None]
    scores = affinities
    if HAS_CORRECTION:
        scores += tl.load(CORRECTION + x * c_e, mask=real, other=0.0).to(tl.float32)
    candidates = some & real
    if GROUPED:
        n = tl.arange(0, BLOCK_G)[None, :]
        worth = tl.full([BLOCK_T, BLOCK_G], float("-inf"), tl.float32)
        for group in range(groups):
            members = candidates & (x // size == group)
            first, place = _best(scores, members, x, BLOCK_X)
            second, _second = _best(scores, members & (x != place[:, None]), x, BLOCK_X)
            best = first + tl.where(size > 1, second, 0.0)
            worth = tl.where(n == group, best[:, None], worth)
        free = some & (n < groups)
        taking_part = some & (x < 0)
        for _rank in range(top_groups):
            _most, place = _best(worth, free, n, BLOCK_G)
            free = free & (n != place[:, None])
            taking_part = taking_part | (x // size == place[:, None])
        candidates = candidates & taking_part
    chosen = tl.zeros([BLOCK_T, BLOCK_C], tl.int32)
    taken = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    for rank in range(k):
        _highest, expert = _best(scores, candidates, x, BLOCK_X)
        hit = x == expert[:, None]
        candidates = candidates & (x != expert[:, None])
        affinity = tl.sum(tl.where(hit, affinities, 0.0), 1)
        chosen = tl.where(c == rank, expert[:, None], chosen)
        taken = tl.where(c == rank, affinity[:, None], taken)
    if RENORMALIZE:
        total = tl.sum(taken, 1)
        taken = taken / tl.where(t < tokens, total, 1.0)[:, None]
    mask = some & (c < k)
    tl.store(INDICES + t[:, None] * i_t + c, chosen, mask=mask)
    tl.store(WEIGHTS + t[:, None] * w_t + c, taken.to(WEIGHTS.dtype.element_ty), mask=mask)


@register_kernel(
    "moe_topk_gating", name="triton.route", restrictions=small("l", 256),
    tunables={"block_tokens": (16, 4, 64)}, description="one program for some tokens in Triton, k rounds of a maximum",
)  # fmt: skip
def route(
    logits: Tensor, k: int, *, renormalize: bool = True, scoring: str = "softmax", correction: Tensor | None = None, groups: int = 1,
    top_groups: int = 1, block_tokens: int = 16,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As fused kernels for routers do; equal scores go to the lower index, of groups and of experts."""
    check_router(logits, k, groups, top_groups)
    tokens, experts = logits.shape
    indices = torch.empty((tokens, k), dtype=torch.int32, device=logits.device)
    weights = logits.new_empty((tokens, k), dtype=stored_dtype(logits.dtype))
    if tokens:
        _route[(triton.cdiv(tokens, block_tokens),)](
            logits, present(correction, logits), indices, weights, *logits.stride(), 0 if correction is None else correction.stride(0),
            k, k, tokens, experts, k, groups, top_groups, experts // groups,
            SIGMOID=scoring == "sigmoid", HAS_CORRECTION=correction is not None, GROUPED=top_groups < groups, RENORMALIZE=renormalize,
            BLOCK_T=block_tokens, BLOCK_X=triton.next_power_of_2(experts), BLOCK_G=triton.next_power_of_2(groups),
            BLOCK_C=triton.next_power_of_2(k),
        )  # fmt: skip
    return indices, weights.to(logits.dtype)
