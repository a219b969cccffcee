"""Attention over packed sequences in PyTorch: sequence by sequence, and in tiles of the packed tokens.

Shapes: q (total_q, Hq, D), k and v (total_k, Hkv, D | Dv), cumulative lengths (B + 1,) -> (total_q, Hq, Dv).
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from conformance import register
from conformance.registry import block_sizes
from implementations.caches import check_edges
from implementations.tiling import Window, tiles
from implementations.torch.logits import working_dtype
from implementations.torch.softmax import normalised, row_shift

__all__ = ["varlen_packed", "varlen_sequences"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _check(q: Tensor, k: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor) -> None:
    check_edges("cu_seqlens_q", cu_seqlens_q.tolist(), len(q))
    check_edges("cu_seqlens_k", cu_seqlens_k.tolist(), len(k))


def _logits(q: Tensor, k: Tensor, scale: float | None, softcap: float | None) -> Tensor:
    """Of grouped queries (l, Hkv, group, D) and keys (s, Hkv, D): (Hkv, group, l, s)."""
    logits = torch.einsum("lgrd,sgd->grls", q, k) * (1 / sqrt(q.shape[-1]) if scale is None else float(scale))
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _in_band(ahead: Tensor, causal: bool, window: Window) -> Tensor:
    """Which keys may be read, from how far ahead of the query they lie."""
    left, right = window or (None, None)
    allowed = ahead <= 0 if causal else torch.ones_like(ahead, dtype=torch.bool)
    if left is not None:
        allowed &= ahead >= -left
    if right is not None:
        allowed &= ahead <= right
    return allowed


@register(
    "varlen_attention",
    backend="torch",
    name="torch.varlen_sequences",
    dtypes=DTYPES,
    description="sequence by sequence, one softmax over all keys of each",
)
def varlen_sequences(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    *,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> Tensor:
    """Plain softmax attention of each sequence."""
    _check(q, k, cu_seqlens_q, cu_seqlens_k)
    groups, dtype = k.shape[1], working_dtype(q)
    parts = []
    own = (torch.tensor_split(x, edges.cpu()[1:-1]) for x, edges in ((q, cu_seqlens_q), (k, cu_seqlens_k), (v, cu_seqlens_k)))
    for queries, keys, values in zip(*own, strict=True):
        rows = queries.to(dtype).reshape(len(queries), groups, q.shape[1] // groups, q.shape[2])
        logits = _logits(rows, keys.to(dtype), scale, softcap)
        length, number = logits.shape[2:]
        place = torch.arange(number, device=q.device) - torch.arange(number - length, number, device=q.device)[:, None]
        allowed = _in_band(place, causal, window)
        weights = torch.softmax(logits.masked_fill(~allowed, -torch.inf), dim=-1).masked_fill(~allowed, 0.0)
        parts.append(torch.einsum("grls,sge->lgre", weights, values.to(dtype)).flatten(1, 2))
    return torch.cat(parts).to(q.dtype) if parts else q.new_zeros(0, q.shape[1], v.shape[2])


@register(
    "varlen_attention",
    backend="torch",
    name="torch.varlen_packed",
    dtypes=DTYPES,
    tunables={"block_q": block_sizes, "block_k": block_sizes},
    description="tiles of the packed tokens, masked by the sequence that each belongs to",
)
def varlen_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    *,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Tensor:
    """An online softmax over tiles that may hold parts of several sequences; tiles without a common sequence are skipped."""
    _check(q, k, cu_seqlens_q, cu_seqlens_k)
    groups, dtype, heads = k.shape[1], working_dtype(q), q.shape[1]
    numbers = [_numbers(edges, len(x)) for edges, x in ((cu_seqlens_q, q), (cu_seqlens_k, k))]
    # Counted from the end of the sequence, where queries and keys are aligned.
    ends = (edges[number + 1] for edges, number in zip((cu_seqlens_q, cu_seqlens_k), numbers, strict=True))
    places = [torch.arange(len(end), device=q.device) - end for end in ends]
    out = q.new_empty(len(q), heads, v.shape[2])
    for rows in tiles(slice(0, len(q)), block_q):
        queries = q[rows].to(dtype).reshape(-1, groups, heads // groups, q.shape[2])
        maximum = queries.new_full((groups, heads // groups, len(queries), 1), -torch.inf)
        total, weighted = torch.zeros_like(maximum), maximum.new_zeros(*maximum.shape[:3], v.shape[2])
        for columns in tiles(slice(0, len(k)), block_k):
            allowed = numbers[0][rows, None] == numbers[1][columns]
            if not allowed.any():
                continue
            allowed &= _in_band(places[1][columns] - places[0][rows, None], causal, window)
            read = torch.isin(numbers[1][columns], numbers[0][rows])
            values = v[columns].to(dtype).masked_fill(~read[:, None, None], 0.0)  # what belongs to others may be NaN
            logits = torch.where(allowed, _logits(queries, k[columns].to(dtype), scale, softcap), -torch.inf)
            highest = torch.maximum(maximum, logits.amax(dim=-1, keepdim=True))
            weights, decay = torch.exp(logits - row_shift(highest)), torch.exp(maximum - row_shift(highest))
            total = total * decay + weights.sum(dim=-1, keepdim=True)
            weighted = weighted * decay + torch.einsum("grls,sge->grle", weights, values)
            maximum = highest
        out[rows] = normalised(weighted, total).flatten(0, 1).transpose(0, 1).to(q.dtype)
    return out


def _numbers(edges: Tensor, total: int) -> Tensor:
    """The sequence of each packed token."""
    lengths = edges[1:] - edges[:-1]
    return torch.repeat_interleave(torch.arange(len(lengths), device=edges.device), lengths, output_size=total)
