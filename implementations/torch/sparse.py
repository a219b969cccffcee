"""Sparse attention in PyTorch: the keys of every block of queries are listed in a table, then gathered and attended to at once.

A table has one row for each block and as many columns as the busiest block reads keys; -1 fills the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from conformance import block_sizes, register
from implementations.torch.devices import where_its_arguments_are
from implementations.torch.logits import working_dtype

__all__ = ["bigbird", "block_sparse", "fixed", "local_global", "pattern", "strided"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TUNABLES = {"block_q": block_sizes}

Allowed = Callable[[Tensor, Tensor], Tensor]


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None, block_q: int, table: Tensor, allowed: Allowed) -> Tensor:
    """Softmax attention of block n of the queries to the keys table[n].

    Args:
        table: (blocks, m) positions of keys, -1 for none.
        allowed: from positions of queries (blocks, block_q, 1) and of keys (blocks, 1, m) to what is read.
    """
    batch, heads, queries, width = q.shape
    groups, blocks = k.shape[1], table.shape[0]
    if queries == 0 or table.shape[1] == 0 or k.shape[2] == 0:
        return q.new_zeros((batch, heads, queries, v.shape[3]))
    dtype = working_dtype(q)
    rows = pad(q.to(dtype) * (width**-0.5 if scale is None else scale), (0, 0, 0, blocks * block_q - queries))
    rows = rows.reshape(batch, groups, heads // groups, blocks, block_q, width)
    index = table.clamp(min=0)
    logits = torch.einsum("bgrnqd,bgnmd->bgrnqm", rows, k[:, :, index].to(dtype))
    positions = torch.arange(blocks * block_q).reshape(blocks, block_q, 1)
    reads = allowed(positions, table[:, None, :]) & (table >= 0)[:, None, :]
    weights = torch.softmax(logits.masked_fill(~reads, -torch.inf), dim=-1).masked_fill(~reads.any(dim=-1, keepdim=True), 0.0)
    out = torch.einsum("bgrnqm,bgnme->bgrnqe", weights, v[:, :, index].to(dtype))
    return out.reshape(batch, heads, blocks * block_q, v.shape[3])[:, :, :queries].to(q.dtype)


def _starts(length: int, block_q: int) -> Tensor:
    return torch.arange(0, length, block_q)


def _sides(rows: list[Tensor]) -> Tensor:
    """A table of rows of different lengths."""
    longest = max((len(row) for row in rows), default=0)
    return torch.stack([pad(row, (0, longest - len(row)), value=-1) for row in rows]) if rows else torch.zeros((0, 0), dtype=torch.long)


@register(
    "local_global_attention", backend="torch", name="torch.local_global", dtypes=DTYPES, tunables=TUNABLES,
    description="windows as overlapping views of the padded keys, all at once, beside the global keys; global rows apart",
)  # fmt: skip
@where_its_arguments_are
def local_global(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, global_tokens: Sequence[int], causal: bool = False, scale: float | None = None,
    global_self: bool = True, global_rows: bool = True, block_q: int = 64,
) -> Tensor:  # fmt: skip
    """Every window is masked by the same band; what differs from block to block is a row of it, which hides what is no key of a window."""
    batch, heads, length, width = q.shape
    groups, dtype = k.shape[1], working_dtype(q)
    special = torch.unique(torch.tensor(list(global_tokens), dtype=torch.long))
    if q.numel() == 0 or v.numel() == 0:
        return q.new_zeros((batch, heads, length, v.shape[3]))
    reach, blocks = min(window, length), -(-length // block_q)
    missing = blocks * block_q - length
    rows = pad(q.to(dtype) * (width**-0.5 if scale is None else scale), (0, 0, 0, missing))
    rows = rows.reshape(batch, groups, heads // groups, blocks, block_q, width)
    keys, values = k.to(dtype), v.to(dtype)
    # (B, Hkv, 1, blocks, D, block_q + 2 reach): window n begins `reach` before block n
    windows, shown = (pad(x, (0, 0, reach, reach + missing)).unfold(2, block_q + 2 * reach, block_q)[:, :, None] for x in (keys, values))
    ahead = torch.arange(block_q + 2 * reach) - torch.arange(block_q)[:, None] - reach
    outside = (ahead.abs() > reach) | ((ahead > 0) & causal)
    hidden = torch.zeros(length, dtype=torch.bool)  # global keys are not among those of a window
    hidden[special] = True
    hidden = pad(hidden, (reach, reach + missing), value=True).unfold(0, block_q + 2 * reach, block_q)
    positions = torch.arange(blocks * block_q).reshape(blocks, block_q, 1)
    far = ((special > positions) & causal) | ((special == positions) & (not global_self))
    logits = torch.cat([
        (rows @ windows).add_(_additive(outside, dtype)).add_(_additive(hidden[:, None], dtype)),
        (rows @ keys[:, :, None, None, special].transpose(-1, -2)).add_(_additive(far, dtype)),
    ], dim=-1)  # fmt: skip
    weights = torch.softmax(logits, dim=-1)
    if not global_self:  # else every query reads itself
        weights = weights.masked_fill_(torch.isneginf(logits).all(dim=-1, keepdim=True), 0.0)
    near, rest = weights[..., : block_q + 2 * reach], weights[..., block_q + 2 * reach :]
    out = near @ shown.transpose(-1, -2) + rest @ values[:, :, None, None, special]
    out = out.reshape(batch, heads, blocks * block_q, v.shape[3])[:, :, :length].to(q.dtype)
    if global_rows and len(special):
        everything = torch.arange(length)[None, :]
        read = (special[:, None] >= everything) | (not causal)
        read &= (special[:, None] != everything) | global_self
        out[:, :, special] = _attend(q[:, :, special], k, v, scale, len(special), everything, lambda index, keys: read[None])
    return out


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to logits: minus infinity where they are hidden."""
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)


@register(
    "strided_attention", backend="torch", name="torch.strided", dtypes=DTYPES,
    description="positions as rows and columns of a grid as wide as the stride",
)  # fmt: skip
@where_its_arguments_are
def strided(q: Tensor, k: Tensor, v: Tensor, *, stride: int, scale: float | None = None) -> Tensor:
    """The near keys of a row of the grid lie in it and in the row above, the far ones in the query's own column."""
    length = q.shape[2]
    first = _starts(length, stride)[:, None]
    near = first + torch.arange(-stride + 1, stride)
    near = torch.where((near >= 0) & (near < length), near, -1)
    batch, heads, _, width = q.shape
    groups, blocks = k.shape[1], len(first)
    if q.numel() == 0 or v.numel() == 0:
        return q.new_zeros((batch, heads, length, v.shape[3]))
    dtype = working_dtype(q)
    fill = (0, 0, 0, blocks * stride - length)
    rows = pad(q.to(dtype) * (width**-0.5 if scale is None else scale), fill).reshape(batch, groups, -1, blocks, stride, width)
    columns, values = (pad(x.to(dtype), fill).reshape(batch, groups, 1, blocks, stride, -1).transpose(3, 4) for x in (k, v))
    positions = torch.arange(blocks * stride).reshape(blocks, stride, 1)
    behind = positions - near[:, None, :]
    close = torch.einsum("bgrnqd,bgnmd->bgrnqm", rows, k[:, :, near.clamp(min=0)].to(dtype))
    close = close.masked_fill(~((behind >= 0) & (behind < stride) & (near >= 0)[:, None, :]), -torch.inf)
    far = (rows.transpose(3, 4) @ columns.transpose(-1, -2)).masked_fill(torch.ones(blocks, blocks).triu().bool(), -torch.inf)
    weights = torch.softmax(torch.cat([close, far.transpose(3, 4)], dim=-1), dim=-1)
    split = near.shape[1]
    out = torch.einsum("bgrnqm,bgnme->bgrnqe", weights[..., :split], v[:, :, near.clamp(min=0)].to(dtype))
    out = out + (weights[..., split:].transpose(3, 4) @ values).transpose(3, 4)
    return out.reshape(batch, heads, blocks * stride, v.shape[3])[:, :, :length].to(q.dtype)


@register(
    "fixed_attention", backend="torch", name="torch.fixed", dtypes=DTYPES,
    description="each block with all summaries, in one table",
)  # fmt: skip
@where_its_arguments_are
def fixed(q: Tensor, k: Tensor, v: Tensor, *, stride: int, c: int = 1, scale: float | None = None) -> Tensor:
    """A block of queries reads itself and the last c keys of each block; those of later blocks are hidden by causality."""
    length = q.shape[2]
    first = _starts(length, stride)[:, None]
    own = first + torch.arange(stride)
    summaries = torch.arange(length)
    summaries = summaries[summaries % stride >= stride - c].expand(len(first), -1)
    table = torch.cat([torch.where(own < length, own, -1), torch.where(summaries < first, summaries, -1)], dim=1)
    return _attend(q, k, v, scale, stride, table, lambda positions, keys: keys <= positions)


@register(
    "bigbird_attention", backend="torch", name="torch.bigbird", dtypes=DTYPES,
    description="window, global and random blocks in one table, global rows apart",
)  # fmt: skip
@where_its_arguments_are
def bigbird(
    q: Tensor, k: Tensor, v: Tensor, *, block_size: int, window_blocks: int, global_blocks: int, random_blocks: Tensor,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Blocks that qualify twice are marked once in a small matrix of blocks, whose rows become the table."""
    length, count = q.shape[2], random_blocks.shape[0]
    number = torch.arange(count)
    marked = ((number[:, None] - number).abs() <= window_blocks // 2) | (number < global_blocks)
    marked = marked.scatter(1, random_blocks, True) if random_blocks.shape[1] else marked
    chosen = _sides([row.nonzero()[:, 0] for row in marked])
    tokens = chosen[:, :, None] * block_size + torch.arange(block_size)
    table = torch.where((chosen >= 0)[:, :, None] & (tokens < length), tokens, -1).flatten(1)

    def everything(positions: Tensor, keys: Tensor) -> Tensor:
        return torch.ones_like(keys, dtype=torch.bool)

    out = _attend(q, k, v, scale, block_size, table, everything)
    rows = min(global_blocks * block_size, length)
    if rows:
        out[:, :, :rows] = _attend(q[:, :, :rows], k, v, scale, rows, torch.arange(length)[None, :], everything)
    return out


@register(
    "block_sparse_attention", backend="torch", name="torch.block_sparse", dtypes=DTYPES,
    description="the allowed blocks of each head in a table",
)  # fmt: skip
@where_its_arguments_are
def block_sparse(
    q: Tensor, k: Tensor, v: Tensor, *, block_mask: Tensor, block_q: int, block_k: int, causal: bool = False, scale: float | None = None
) -> Tensor:
    """Sequence by sequence and head by head where the mask differs between them, all at once where it does not."""
    batch, heads, queries, _ = q.shape
    length, group = k.shape[2], heads // k.shape[1]
    out = q.new_zeros((batch, heads, queries, v.shape[3]))
    for b in range(block_mask.shape[0]):
        for h in range(block_mask.shape[1]):
            sequences = slice(None) if block_mask.shape[0] == 1 else slice(b, b + 1)
            own = slice(None) if block_mask.shape[1] == 1 else slice(h, h + 1)
            shared = slice(None) if block_mask.shape[1] == 1 else slice(h // group, h // group + 1)
            chosen = _sides([row.nonzero()[:, 0] for row in block_mask[b, h]])
            tokens = chosen[:, :, None] * block_k + torch.arange(block_k)
            table = torch.where((chosen >= 0)[:, :, None] & (tokens < length), tokens, -1).flatten(1)
            out[sequences, own] = _attend(
                q[sequences, own], k[sequences, shared], v[sequences, shared], scale, block_q, table,
                lambda positions, keys: (keys <= positions + length - queries) | (not causal),
            )  # fmt: skip
    return out


@register(
    "pattern_attention", backend="torch", name="torch.pattern", dtypes=DTYPES, tunables=TUNABLES,
    description="the keys that some query of a block may read, in a table",
)  # fmt: skip
@where_its_arguments_are
def pattern(q: Tensor, k: Tensor, v: Tensor, *, pattern: Callable[..., Tensor], scale: float | None = None, block_q: int = 128) -> Tensor:
    """The pattern is asked about one block of queries at a time."""
    queries, keys = q.shape[2], torch.arange(k.shape[2])

    def reads(start: int) -> Tensor:
        rows = torch.arange(start, min(start + block_q, queries))[:, None]
        return pattern(rows, keys[None, :]).expand(len(rows), len(keys)).any(dim=0).nonzero()[:, 0]

    table = _sides([reads(start) for start in range(0, queries, block_q)])
    return _attend(q, k, v, scale, block_q, table, lambda positions, keys: pattern(positions, keys))
