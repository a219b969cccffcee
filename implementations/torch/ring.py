"""Attention over several processes, each of which holds some of the tokens: keys and values go round a ring, or are gathered.

Called on every process of a group (torch.distributed, any backend that sends the tensors). The tokens of all are cut into as many
chunks as there are processes, chunk i from i * length // chunks on; process r holds chunk r. In zigzag there are twice as many, and it
holds chunks r and last - r, so that a causal mask leaves all processes the same work.

Shapes on a process: q (B, Hq, l, D), k (B, Hkv, l, D), v (B, Hkv, l, Dv) -> (B, Hq, l, Dv), with l the number of its own tokens.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from conformance import register
from conformance.registry import zigzag_orders
from implementations.torch.devices import where_its_arguments_are
from implementations.torch.logits import grouped_matmul, working_dtype
from implementations.torch.softmax import OnlineSoftmax

__all__ = ["blockwise_transformer", "gathered_attention", "ring_attention"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TUNABLES = {"zigzag": zigzag_orders}


def _lengths(tokens: int, group: dist.ProcessGroup) -> list[int]:
    """How many tokens each process holds."""
    own = torch.tensor([tokens])
    lengths = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(lengths, own, group=group)
    return [int(length) for length in lengths]


def _positions(length: int, rank: int, ranks: int, zigzag: bool) -> Tensor:
    """Where the tokens of a process stand in the whole."""
    chunks = 2 * ranks if zigzag else ranks

    def chunk(number: int) -> Tensor:
        return torch.arange(number * length // chunks, (number + 1) * length // chunks)

    return torch.cat([chunk(rank), chunk(chunks - 1 - rank)]) if zigzag else chunk(rank)


def _pass_on(tensors: list[Tensor], shapes: list[tuple[int, ...]], group: dist.ProcessGroup) -> list[Tensor]:
    """Send tensors to the next process, and receive those of the one before, which have the given shapes."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    received = [tensor.new_empty(shape) for tensor, shape in zip(tensors, shapes, strict=True)]
    following, before = (dist.get_global_rank(group, (rank + step) % ranks) for step in (1, -1))
    work = [dist.isend(tensor, following, group=group, tag=tag) for tag, tensor in enumerate(tensors) if tensor.numel()]
    work += [dist.irecv(tensor, before, group=group, tag=tag) for tag, tensor in enumerate(received) if tensor.numel()]
    for one in work:
        if one is not None:
            one.wait()
    return received


def _with_length(tensor: Tensor, length: int) -> tuple[int, ...]:
    return (*tensor.shape[:2], length, tensor.shape[3])


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None, zigzag: bool, group: dist.ProcessGroup) -> Tensor:
    """Attention of this process's queries to the keys of all, in the working dtype, (B, Hq, l, Dv)."""
    rank, ranks, dtype = dist.get_rank(group), dist.get_world_size(group), working_dtype(q)
    lengths = _lengths(q.shape[2], group)
    own = _positions(sum(lengths), rank, ranks, zigzag)
    rows = q.to(dtype) * (q.shape[3] ** -0.5 if scale is None else scale)
    state = OnlineSoftmax((q.shape[0], q.shape[1], q.shape[2]), v.shape[3], torch.full((q.shape[1], 1, 1), -torch.inf, dtype=dtype))
    keys, values = k.contiguous(), v.contiguous()
    for step in range(ranks):
        source = (rank - step) % ranks
        positions = _positions(sum(lengths), source, ranks, zigzag)
        # Keys of which no query may read one are passed on unread, which in order of the ring are all of later processes.
        if len(own) and len(positions) and not (causal and positions.min() > own.max()):
            logits = grouped_matmul(rows, keys.to(dtype).transpose(2, 3))
            if causal:
                logits = logits.masked_fill(positions > own[:, None], -torch.inf)
            state.update(logits, values.to(dtype))
        if step < ranks - 1:
            arriving = lengths[(source - 1) % ranks]
            keys, values = _pass_on([keys, values], [_with_length(keys, arriving), _with_length(values, arriving)], group)
    return state.result()[0]


@register(
    "ring_attention", backend="torch", name="torch.ring_attention", dtypes=DTYPES, tunables=TUNABLES,
    description="keys and values go round processes; one online softmax over all steps",
)  # fmt: skip
@where_its_arguments_are
def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None, zigzag: bool = False, group: dist.ProcessGroup
) -> Tensor:
    """On each process, the outputs of its own tokens."""
    return _attend(q, k, v, causal, scale, zigzag, group).to(q.dtype)


@register(
    "ring_attention", backend="torch", name="torch.gathered_attention", dtypes=DTYPES, tunables=TUNABLES,
    description="keys and values of all processes gathered on each, one softmax",
)  # fmt: skip
@where_its_arguments_are
def gathered_attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None, zigzag: bool = False, group: dist.ProcessGroup
) -> Tensor:
    """On each process, the outputs of its own tokens. What is gathered has one length: shorter shares are filled up."""
    rank, ranks, dtype = dist.get_rank(group), dist.get_world_size(group), working_dtype(q)
    lengths = _lengths(q.shape[2], group)
    longest = max(lengths)

    def everyone(x: Tensor) -> Tensor:
        filled = torch.nn.functional.pad(x, (0, 0, 0, longest - x.shape[2])).contiguous()
        shares = [torch.empty_like(filled) for _ in range(ranks)]
        dist.all_gather(shares, filled, group=group)
        return torch.cat([share[:, :, :length] for share, length in zip(shares, lengths, strict=True)], dim=2).to(dtype)

    keys, values = everyone(k), everyone(v)
    where = torch.cat([_positions(sum(lengths), source, ranks, zigzag) for source in range(ranks)])
    own = _positions(sum(lengths), rank, ranks, zigzag)
    if not len(own):
        return q.new_empty(_with_length(q, 0)[:3] + v.shape[3:])
    logits = grouped_matmul(q.to(dtype), keys.transpose(2, 3)) * (q.shape[3] ** -0.5 if scale is None else scale)
    if causal:
        logits = logits.masked_fill(where > own[:, None], -torch.inf)
    return grouped_matmul(torch.softmax(logits, dim=-1), values).to(q.dtype)


@register(
    "blockwise_transformer", backend="torch", name="torch.blockwise_transformer", dtypes=DTYPES, tunables=TUNABLES,
    description="attention round the ring, then the feed-forward network of a process's own tokens",
)  # fmt: skip
@where_its_arguments_are
def blockwise_transformer(
    q: Tensor, k: Tensor, v: Tensor, w_in: Tensor, w_out: Tensor, *, causal: bool = False, scale: float | None = None,
    activation: str = "relu", zigzag: bool = False, group: dist.ProcessGroup,
) -> Tensor:  # fmt: skip
    """On each process, the block's outputs of its own tokens, (B, l, Hq D)."""
    dtype = working_dtype(q)
    attended = _attend(q, k, v, causal, scale, zigzag, group) + q.to(dtype)
    tokens = attended.transpose(1, 2).flatten(2)
    inner = tokens @ w_in.to(dtype)
    active = torch.relu(inner) if activation == "relu" else torch.nn.functional.silu(inner)
    return (tokens + active @ w_out.to(dtype)).to(q.dtype)
