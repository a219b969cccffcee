"""Chebyshev attention in PyTorch, on any device: by cosines, and by the powers of t.

Shapes: q (B, H, Lq, D), k (B, H, Lk, D), v (B, H, Lk, Dv) -> (B, H, Lq, Dv).
"""

from __future__ import annotations

from math import cos, exp, pi

import torch
from torch import Tensor

from conformance import register
from conformance.registry import block_sizes
from implementations.torch.logits import working_dtype

__all__ = ["chebyshev_cosines", "chebyshev_tiled"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
Domain = tuple[float, float]


def _coefficients(degree: int, domain: Domain) -> list[float]:
    """By the discrete cosine transform of exp at the roots of T_{degree + 1}."""
    low, high = domain
    count = degree + 1
    angles = [pi * (2 * point + 1) / (2 * count) for point in range(count)]
    values = [exp((high + low) / 2 + (high - low) / 2 * cos(angle)) for angle in angles]
    sums = [sum(value * cos(order * angle) for value, angle in zip(values, angles, strict=True)) for order in range(count)]
    return [sums[0] / count, *(2 * total / count for total in sums[1:])]


def _unit(logits: Tensor, domain: Domain) -> Tensor:
    """Logits mapped to [-1, 1] and clipped there."""
    low, high = domain
    return ((2 * logits - (low + high)) / (high - low)).clamp(-1, 1)


def _logits(q: Tensor, k: Tensor, scale: float | None) -> Tensor:
    return q @ k.mT * (max(q.shape[3], 1) ** -0.5 if scale is None else scale)


@register("chebyshev_attention", backend="torch", name="torch.chebyshev_cosines", dtypes=DTYPES, description="T_k(t) = cos(k arccos t)")
def chebyshev_cosines(q: Tensor, k: Tensor, v: Tensor, *, degree: int, domain: Domain, scale: float | None = None) -> Tensor:
    """All weights at once, each T_k by its cosine."""
    dtype = working_dtype(q)
    angle = torch.arccos(_unit(_logits(q.to(dtype), k.to(dtype), scale), domain))
    weights = torch.zeros_like(angle)
    for order, coefficient in enumerate(_coefficients(degree, domain)):
        weights += coefficient * torch.cos(order * angle)
    if k.shape[2] == 0:
        return q.new_zeros((*q.shape[:3], v.shape[3]))
    return (weights @ v.to(dtype) / weights.sum(dim=3, keepdim=True)).to(q.dtype)


@register(
    "chebyshev_attention", backend="torch", name="torch.chebyshev", dtypes=DTYPES, tunables={"block_q": block_sizes},
    description="Clenshaw's recurrence, tiles of queries",
)  # fmt: skip
def chebyshev_tiled(
    q: Tensor, k: Tensor, v: Tensor, *, degree: int, domain: Domain, scale: float | None = None, block_q: int = 128
) -> Tensor:
    """Clenshaw's recurrence on a tile of queries at a time; the weights are normalised before they meet the values."""
    dtype = working_dtype(q)
    coefficients = _coefficients(degree, domain)
    parts = []
    for rows in torch.split(q.to(dtype), block_q, dim=2):
        double = 2 * _unit(_logits(rows, k.to(dtype), scale), domain)
        after, latest = torch.zeros_like(double), torch.full_like(double, coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            after, latest = latest, coefficient + double * latest - after
        # p = b_0 - t b_1, with b_0 the last of the recurrence.
        weights = latest - double / 2 * after
        parts.append(weights / weights.sum(dim=3, keepdim=True) @ v.to(dtype))
    return torch.cat(parts, dim=2).to(q.dtype)
