"""Layers of experts in PyTorch: tokens dispatched into buffers and combined from them, masked blocks, batched experts of groups."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, relu, scaled_dot_product_attention, silu

from conformance import register
from implementations.torch.devices import aligned, where_its_arguments_are
from implementations.torch.logits import working_dtype

__all__ = ["attend_with_experts", "mix_depths", "mix_dispatched"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def check_layer(indices: Tensor, experts: int, capacity: int | None) -> None:
    """Raise `ValueError` for what has no answer."""
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= experts):
        raise ValueError(f"indices range from {int(indices.min())} to {int(indices.max())}, but should be at least 0 and below {experts}")
    if capacity is not None and capacity < 0:
        raise ValueError(f"capacity={capacity}, but should be at least 0")


def _feed_forward(x: Tensor, w_in: Tensor, w_out: Tensor, w_gate: Tensor | None, activation: str) -> Tensor:
    inner, act = x @ w_in, relu if activation == "relu" else silu
    return (act(inner) if w_gate is None else act(x @ w_gate) * inner) @ w_out


@register("moe_layer", backend="torch", name="torch.moe_dispatched", dtypes=DTYPES,
          description="tokens dispatched into buffers of every expert's capacity, and combined from there (GShard)")  # fmt: skip
def mix_dispatched(
    hidden: Tensor, indices: Tensor, weights: Tensor, w_in: Tensor, w_out: Tensor, *, w_gate: Tensor | None = None,
    shared_in: Tensor | None = None, shared_out: Tensor | None = None, shared_gate: Tensor | None = None, capacity: int | None = None,
    activation: str = "silu",
) -> Tensor:  # fmt: skip
    """Places in the buffers follow from cumulative sums of one-hot rows."""
    check_layer(indices, len(w_in), capacity)
    dtype, (tokens, choices) = working_dtype(hidden), indices.shape
    x, experts = hidden.to(dtype), len(w_in)
    flat = indices.reshape(-1)  # in the order of tokens and then of choices
    hot = one_hot(flat, experts)
    place = (hot.cumsum(dim=0) * hot).sum(dim=1) - 1
    largest = int(place.max()) + 1 if len(place) else 0
    room = largest if capacity is None else min(capacity, largest)
    kept = place < room
    spot = (flat * room + place)[kept]
    buffers = x.new_zeros(experts * room, x.shape[1]).index_copy(0, spot, x.repeat_interleave(choices, dim=0)[kept])
    wide = [None if w is None else w.to(dtype) for w in (w_in, w_out, w_gate, shared_in, shared_out, shared_gate)]
    assert wide[0] is not None and wide[1] is not None
    made = _feed_forward(buffers.reshape(experts, room, x.shape[1]), wide[0], wide[1], wide[2], activation)
    combined = x.new_zeros(tokens * choices, x.shape[1])
    combined[kept] = made.reshape(experts * room, x.shape[1])[spot] * weights.to(dtype).reshape(-1, 1)[kept]
    out = combined.reshape(tokens, choices, hidden.shape[1]).sum(dim=1)
    if wide[3] is not None and wide[4] is not None:
        out = out + _feed_forward(x, wide[3], wide[4], wide[5], activation)
    return out.to(hidden.dtype)


@register("mixture_of_depths", backend="torch", name="torch.mixture_of_depths", dtypes=DTYPES,
          description="all sequences at once, the block masked where a token passes it by")  # fmt: skip
def mix_depths(
    hidden: Tensor, router: Tensor, w_in: Tensor, w_out: Tensor, *, capacity: int | None = None, threshold: float | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Every token is processed, and the result kept where it was chosen."""
    if (capacity is None) == (threshold is None) or (capacity or 0) < 0:
        raise ValueError(f"capacity={capacity} and threshold={threshold}, but one of them should be given, and at least 0 of tokens")
    dtype = working_dtype(hidden)
    x = hidden.to(dtype)
    scores = x @ router.to(dtype)
    if threshold is not None:
        chosen = scores > threshold
    else:
        order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :capacity]
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, True)
    update = scores[..., None] * (silu(x @ w_in.to(dtype)) @ w_out.to(dtype))
    return torch.where(chosen[..., None], x + update, x).to(hidden.dtype), chosen


@register("grouped_query_attention_shared_experts", backend="torch", name="torch.gqa_experts", dtypes=DTYPES,
          description="scaled_dot_product_attention, then one batched product for every group")  # fmt: skip
@where_its_arguments_are
def attend_with_experts(
    q: Tensor, k: Tensor, v: Tensor, w_in: Tensor, w_out: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:  # fmt: skip
    """Experts see (B L R, Dv) rows of their group."""
    dtype, (batch, heads, queries, _), (_, groups, keys, width) = working_dtype(q), q.shape, v.shape
    if batch * queries * keys == 0:
        return q.new_zeros((batch, heads, queries, width))
    mask = torch.arange(keys) <= torch.arange(queries)[:, None] + keys - queries if causal else torch.ones(queries, keys, dtype=torch.bool)
    seen = mask.any(dim=1)
    rows, shared, values = (aligned(x.to(dtype).repeat_interleave(heads // x.shape[1], dim=1)) for x in (q, k, v))
    attended = scaled_dot_product_attention(rows, shared, values, attn_mask=mask | ~seen[:, None], scale=scale)
    attended = attended.masked_fill(~seen[:, None], 0.0)
    rows = attended.reshape(batch, groups, -1, queries, width).transpose(0, 1).reshape(groups, -1, width)
    rows = rows + torch.bmm(silu(torch.bmm(rows, w_in.to(dtype))), w_out.to(dtype))
    return rows.reshape(groups, batch, -1, queries, width).transpose(0, 1).reshape(attended.shape).to(q.dtype)
