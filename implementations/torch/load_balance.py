"""Balance of experts in PyTorch: counts that are scattered, deviations by `torch.std`, a capacity by a quotient of tensors."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from conformance import register
from implementations.torch.logits import working_dtype

__all__ = ["capacity", "switch_loss", "switch_loss_of_tokens", "variation"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _counts(indices: Tensor, experts: int, dtype: torch.dtype) -> Tensor:
    flat = indices.reshape(-1)
    if len(flat) and not (int(flat.min()) >= 0 and int(flat.max()) < experts):
        raise ValueError(f"indices range from {int(flat.min())} to {int(flat.max())}, but should be at least 0 and below {experts}")
    return torch.zeros(experts, dtype=dtype, device=flat.device).scatter_add(0, flat, torch.ones_like(flat, dtype=dtype))


@register("switch_load_balance_loss", backend="torch", name="torch.switch_loss", dtypes=DTYPES,
          description="scattered counts times mean probabilities")  # fmt: skip
def switch_loss(probabilities: Tensor, indices: Tensor) -> Tensor:
    """Fractions of assignments."""
    tokens, experts = probabilities.shape
    dtype = working_dtype(probabilities)
    if not tokens:
        return probabilities.new_zeros((), dtype=dtype)
    fractions = _counts(indices, experts, dtype) / indices.numel()
    return experts * torch.dot(fractions, probabilities.to(dtype).mean(dim=0))


@register("switch_load_balance_loss", backend="torch", name="torch.switch_loss_of_tokens", dtypes=DTYPES,
          conventions={"fraction": "of-tokens"}, description="the same, fractions of tokens, with one-hot matrices")  # fmt: skip
def switch_loss_of_tokens(probabilities: Tensor, indices: Tensor) -> Tensor:
    """As models of several choices often have it: the mean of one-hot matrices, for each choice."""
    tokens, experts = probabilities.shape
    dtype = working_dtype(probabilities)
    if not tokens:
        return probabilities.new_zeros((), dtype=dtype)
    hot = torch.nn.functional.one_hot(indices, experts).to(dtype).mean(dim=0)  # (k, E)
    return (hot * probabilities.to(dtype).mean(dim=0)).sum() * experts


@register("load_balance_cv", backend="torch", name="torch.variation", dtypes=DTYPES, description="torch.std over torch.mean")  # fmt: skip
def variation(loads: Tensor) -> Tensor:
    """Of all experts, without Bessel's correction."""
    wide = loads.to(working_dtype(loads))
    if not (torch.isfinite(wide) & (wide >= 0)).all():
        raise ValueError("loads should be finite and at least 0")
    deviation, mean = torch.std_mean(wide, dim=0, correction=0)
    return torch.where(mean > 0, deviation / mean, torch.zeros_like(mean))


@register("expert_capacity", backend="torch", name="torch.capacity", dtypes=("float32",), description="in double precision")  # fmt: skip
def capacity(*, tokens: int, experts: int, k: int = 1, capacity_factor: float = 1.0, min_capacity: int = 0) -> Tensor:
    """What a layer allocates: a tensor of one integer."""
    if tokens < 0 or experts < 1 or k < 1 or capacity_factor <= 0 or min_capacity < 0:
        raise ValueError(f"tokens={tokens}, experts={experts}, k={k}, capacity_factor={capacity_factor} leave no capacity")
    return torch.tensor(max(ceil(tokens * k * capacity_factor / experts), min_capacity))
