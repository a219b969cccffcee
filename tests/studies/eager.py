"""The plain implementation that rules compare with: textbook operations, each in the dtype of the call."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

Tensor = torch.Tensor


def tensor(array: np.ndarray) -> Tensor:
    """A tensor with the elements of an array, bfloat16 included."""
    copy = np.array(array, order="C")
    if array.dtype.name == "bfloat16":  # which torch cannot take from NumPy
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copy)


def plain(method: str, arguments: dict[str, Any]) -> tuple[Tensor, ...]:
    """What the method's textbook form returns."""
    given = {name: tensor(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    if method == "merge_attention_states":
        return merge(**given)
    out, lse = attention(**given)
    return (out,) if method == "attention" else (out, lse)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None, causal: bool = False,
    window: tuple[int | None, int | None] | None = None, softcap: float | None = None, scale: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    group, queries, keys = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.mT * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    ahead = torch.arange(keys) - (torch.arange(queries)[:, None] + keys - queries)
    left, right = window or (None, None)
    allowed = torch.ones(scores.shape, dtype=torch.bool)
    allowed = allowed & mask if mask is not None else allowed
    allowed = allowed & (ahead <= 0) if causal else allowed
    allowed = allowed & (ahead >= -left) if left is not None else allowed
    allowed = allowed & (ahead <= right) if right is not None else allowed
    scores = scores.masked_fill(~allowed, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(*scores.shape[:-1], 1)], dim=-1)
    weights = torch.softmax(scores, dim=-1).nan_to_num(0)[..., :keys]
    statistic = torch.promote_types(q.dtype, torch.float32)
    return weights @ v, torch.logsumexp(scores.to(statistic), dim=-1)


def merge(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.logsumexp(lses, dim=0)
    weights = torch.exp(lses - total.masked_fill(total.isinf(), 0))
    return (weights[..., None].to(outs.dtype) * outs).sum(dim=0), total
