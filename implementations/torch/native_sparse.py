"""Native sparse attention in PyTorch: all queries at once, their keys gathered by index for the selected and windowed branch.

The weights of the compressed branch are added up over the strides of each selection block by one pooling, and the blocks are
chosen by a stable sort. Selected keys are streamed, one chosen block of every query after the other, with an online softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from conformance import register
from implementations.torch.devices import where_its_arguments_are
from implementations.torch.logits import working_dtype

__all__ = ["native_sparse", "native_sparse_forced"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TUNABLES = {"blocks_at_once": (1, 2, 3, 64)}


def _normalised(logits: Tensor, reads: Tensor) -> Tensor:
    """Softmax over the last axis; zeros in a row that reads nothing."""
    weights = torch.softmax(logits.masked_fill(~reads, -torch.inf), dim=-1)
    return weights.masked_fill(~reads.any(dim=-1, keepdim=True), 0.0)


def _summaries(x: Tensor, block: int, stride: int, weights: Tensor | None) -> Tensor:
    """(B, Hkv, n, width): every compressed block as a window onto the rows, then one product with its weights."""
    if x.shape[2] < block:
        return x[:, :, :0]
    windows = x.unfold(2, block, stride)  # (B, Hkv, n, width, block)
    return windows.mean(dim=-1) if weights is None else windows @ weights


def _importance(weights: Tensor, blocks: int, block: int, stride: int, select: int) -> Tensor:
    """From the compressed weights (B, Hkv, L, n) to the importance of the selection blocks (B, Hkv, L, blocks).

    Selection block j adds up the strides of the compressed blocks from (l'/d) j - (l/d - 1) on.
    """
    before, per_block = block // stride - 1, select // stride
    reach = blocks * per_block + before
    padded = pad(weights, (before, max(reach - before - weights.shape[-1], 0)))[..., :reach]
    shared = padded.unfold(-1, per_block + before, per_block)  # (B, Hkv, L, blocks, overlapping compressed blocks)
    place = torch.arange(per_block + before)
    times = torch.minimum(torch.minimum(place + 1, per_block + before - place), torch.tensor(min(per_block, before + 1)))
    return (shared * times.to(weights.dtype)).sum(dim=-1)


def _chosen(importance: Tensor, select: int, count: int, forced: bool) -> tuple[Tensor, Tensor]:
    """Blocks (B, Hkv, L, at most count) and which of them are read."""
    length, blocks = importance.shape[2:]
    own = torch.arange(length)[:, None] // select
    number = torch.arange(blocks)
    begun = number <= own
    always = (begun & ((number == 0) | (number >= own - 1))) if forced else torch.zeros_like(begun)
    ranked = importance.masked_fill(~begun, -torch.inf).masked_fill(always, torch.inf)
    order = torch.sort(ranked, dim=-1, descending=True, stable=True).indices[..., : max(count, 3 if forced else 0)]
    reads = begun.expand_as(ranked).gather(-1, order)
    return order, reads & ((torch.arange(order.shape[-1]) < count) | always.expand_as(ranked).gather(-1, order))


def _gathered(x: Tensor, tokens: Tensor) -> Tensor:
    """Rows (B, Hkv, L, t, width) of x at the positions (B, Hkv, L, t)."""
    flat = tokens.flatten(2)[..., None].expand(-1, -1, -1, x.shape[3])
    return x.gather(2, flat).reshape(*tokens.shape, x.shape[3])


def _selected(rows: Tensor, k: Tensor, v: Tensor, order: Tensor, reads: Tensor, select: int, at_once: int) -> Tensor:
    """Online softmax over the chosen blocks, (B, Hkv, R, L, Dv)."""
    length = rows.shape[3]
    maximum = rows.new_full((*rows.shape[:4], 1), -torch.inf)
    total, out = torch.zeros_like(maximum), rows.new_zeros((*rows.shape[:4], v.shape[3]))
    for start in range(0, order.shape[-1], at_once):
        part = slice(start, start + at_once)
        tokens = (order[..., part, None] * select + torch.arange(select)).flatten(-2)
        visible = reads[..., part].repeat_interleave(select, dim=-1) & (tokens <= torch.arange(length)[:, None])
        tokens = tokens.clamp(max=length - 1)
        logits = torch.einsum("bgrld,bgltd->bgrlt", rows, _gathered(k, tokens)).masked_fill(~visible[:, :, None], -torch.inf)
        highest = torch.maximum(maximum, logits.amax(dim=-1, keepdim=True))
        shift = highest.masked_fill(highest == -torch.inf, 0.0)
        weights, kept = torch.exp(logits - shift), torch.exp(maximum - shift)
        total = kept * total + weights.sum(dim=-1, keepdim=True)
        out = kept * out + torch.einsum("bgrlt,bglte->bgrle", weights, _gathered(v, tokens))
        maximum = highest
    return out / total


def _windowed(rows: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The last keys of every query as a view onto the keys, shifted to its position."""
    length = rows.shape[3]
    reach = min(window, length)
    keys, values = (pad(x, (0, 0, reach - 1, 0)).unfold(2, reach, 1) for x in (k, v))  # (B, Hkv, L, width, reach)
    logits = torch.einsum("bgrld,bgldt->bgrlt", rows, keys)
    weights = _normalised(logits, torch.arange(length)[:, None] >= torch.arange(reach - 1, -1, -1))
    return torch.einsum("bgrlt,bglet->bgrle", weights, values)


def _native_sparse(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, compress_weights: Tensor | None, scale: float | None, blocks_at_once: int, *,
    compress_block: int, compress_stride: int, select_block: int, select_count: int, window: int, forced: bool,
) -> Tensor:  # fmt: skip
    batch, heads, length, width = q.shape
    out = q.new_zeros((batch, heads, length, v.shape[3]))
    if out.numel() == 0:
        return out
    groups, dtype = k.shape[1], working_dtype(q)
    rows = (q.to(dtype) * (width**-0.5 if scale is None else scale)).reshape(batch, groups, -1, length, width)
    gate = gates.to(dtype).reshape(batch, groups, -1, length, 3, 1)
    k, v = k.to(dtype), v.to(dtype)
    own_weights = None if compress_weights is None else compress_weights.to(dtype)
    keys, values = (_summaries(x, compress_block, compress_stride, own_weights)[:, :, None] for x in (k, v))
    ends = torch.arange(keys.shape[3]) * compress_stride + compress_block - 1
    if len(ends):
        weights = _normalised(rows @ keys.transpose(-1, -2), ends <= torch.arange(length)[:, None])
        compressed = weights @ values
    else:
        weights, compressed = rows.new_zeros((*rows.shape[:4], 0)), torch.zeros((), dtype=dtype)
    blocks = -(-length // select_block)
    importance = _importance(weights.sum(dim=2), blocks, compress_block, compress_stride, select_block)
    order, reads = _chosen(importance, select_block, select_count, forced)
    selected = _selected(rows, k, v, order, reads, select_block, blocks_at_once)
    mixed = gate[..., 0, :] * compressed + gate[..., 1, :] * selected + gate[..., 2, :] * _windowed(rows, k, v, window)
    return mixed.reshape(out.shape).to(q.dtype)


@register(
    "native_sparse_attention", backend="torch", name="torch.native_sparse", dtypes=DTYPES, tunables=TUNABLES,
    description="blocks gathered by index and streamed, windows as views",
)  # fmt: skip
@where_its_arguments_are
def native_sparse(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, *, compress_block: int, compress_stride: int, select_block: int,
    select_count: int, window: int, compress_weights: Tensor | None = None, scale: float | None = None, blocks_at_once: int = 4,
) -> Tensor:  # fmt: skip
    """The choice is free: no block is forced into it."""
    return _native_sparse(
        q, k, v, gates, compress_weights, scale, blocks_at_once, compress_block=compress_block, compress_stride=compress_stride,
        select_block=select_block, select_count=select_count, window=window, forced=False,
    )  # fmt: skip


@register(
    "native_sparse_attention", backend="torch", name="torch.native_sparse_forced", dtypes=DTYPES, tunables=TUNABLES,
    conventions={"forced_blocks": "first-and-two-local"},
    description="the same, the first and the two nearest blocks always among the chosen",
)  # fmt: skip
@where_its_arguments_are
def native_sparse_forced(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, *, compress_block: int, compress_stride: int, select_block: int,
    select_count: int, window: int, compress_weights: Tensor | None = None, scale: float | None = None, blocks_at_once: int = 4,
) -> Tensor:  # fmt: skip
    """As in the experiments of the paper (section 4.1)."""
    return _native_sparse(
        q, k, v, gates, compress_weights, scale, blocks_at_once, compress_block=compress_block, compress_stride=compress_stride,
        select_block=select_block, select_count=select_count, window=window, forced=True,
    )  # fmt: skip
