"""A cache in blocks, in PyTorch: attention gathered at once and over some blocks of all sequences at a time, and new tokens written.

Shapes: q (B, Hq, D), pages (num_blocks, block_size, Hkv, D | Dv), block_table (B, max_blocks), context_lens (B,) -> (B, Hq, Dv).
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from conformance import register
from conformance.registry import block_sizes, split_counts
from implementations.caches import check_cache, check_slots
from implementations.tiling import Window, splits, tiles
from implementations.torch.logits import working_dtype
from implementations.torch.softmax import normalised, row_shift

__all__ = ["append_by_index_copy", "append_by_scatter", "paged_gathered", "paged_split"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _visible(place: Tensor, context_lens: Tensor, window: Window) -> Tensor:
    """Which positions each query reads, (B, n)."""
    allowed = place < context_lens[:, None]
    if window is not None and window[0] is not None:
        allowed &= place >= context_lens[:, None] - 1 - window[0]
    return allowed


def _logits(q: Tensor, keys: Tensor, scale: float | None, softcap: float | None) -> Tensor:
    """Of grouped queries (B, Hkv, group, D) and keys (B, n, Hkv, D): (B, Hkv, group, n)."""
    logits = torch.einsum("bgrd,bngd->bgrn", q, keys) * (1 / sqrt(q.shape[-1]) if scale is None else float(scale))
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


@register(
    "paged_attention",
    backend="torch",
    name="torch.paged_gathered",
    dtypes=DTYPES,
    description="all positions gathered by flat slots, one softmax over them",
)
def paged_gathered(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    *,
    scale: float | None = None,
    window: Window = None,
    softcap: float | None = None,
) -> Tensor:
    """PagedAttention (Kwon et al. 2023, arXiv:2309.06180) over the positions of every sequence side by side."""
    check_cache(block_table.tolist(), context_lens.tolist(), *k_pages.shape[:2])
    (batch, heads, width), size, groups = q.shape, k_pages.shape[1], k_pages.shape[2]
    place = torch.arange(block_table.shape[1] * size, device=q.device)
    allowed = _visible(place, context_lens, window)
    slots = torch.where(allowed, block_table[:, place // size] * size + place % size, 0)
    dtype = working_dtype(q)
    keys, values = (
        torch.index_select(pages.flatten(0, 1), 0, slots.flatten()).reshape(*slots.shape, *pages.shape[2:]).to(dtype)
        for pages in (k_pages, v_pages)
    )
    grouped = q.to(dtype).reshape(batch, groups, heads // groups, width)
    logits = _logits(grouped, keys, scale, softcap).masked_fill(~allowed[:, None, None], -torch.inf)
    weights = torch.softmax(logits, dim=-1)
    values = values.masked_fill(~allowed[..., None, None], 0.0)
    # The softmax of a sequence without context is NaN, as there is nothing to divide by.
    out = torch.einsum("bgrn,bnge->bgre", weights.masked_fill(~allowed[:, None, None], 0.0), values)
    return out.flatten(1, 2).to(q.dtype)


@register(
    "paged_attention",
    backend="torch",
    name="torch.paged_split",
    dtypes=DTYPES,
    tunables={"num_splits": split_counts, "block_k": block_sizes},
    description="splits of the context, each an online softmax over some blocks of all sequences at a time",
)
def paged_split(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    *,
    scale: float | None = None,
    window: Window = None,
    softcap: float | None = None,
    num_splits: int = 4,
    block_k: int = 64,
) -> Tensor:
    """PagedAttention in splits: the second pass rescales what each of them has summed up to the largest logit of all."""
    check_cache(block_table.tolist(), context_lens.tolist(), *k_pages.shape[:2])
    (batch, heads, width), size, groups = q.shape, k_pages.shape[1], k_pages.shape[2]
    dtype, at_once = working_dtype(q), max(block_k // size, 1)
    grouped = q.to(dtype).reshape(batch, groups, heads // groups, width)
    rows = grouped.shape[:3]
    used = -(-int(context_lens.max()) // size) if batch else 0
    maxima, totals, weighted = [], [], []
    for split in splits(used, num_splits):
        maximum, total = grouped.new_full(rows, -torch.inf), grouped.new_zeros(rows)
        out = grouped.new_zeros(*rows, v_pages.shape[3])
        for blocks in tiles(split, at_once):
            place = torch.arange(blocks.start * size, blocks.stop * size, device=q.device)
            allowed = _visible(place, context_lens, window)
            table = block_table[:, blocks].clamp(min=0)
            keys, values = (pages[table].flatten(1, 2).to(dtype) for pages in (k_pages, v_pages))
            values = torch.where(allowed[..., None, None], values, 0.0)
            logits = torch.where(allowed[:, None, None], _logits(grouped, keys, scale, softcap), -torch.inf)
            highest = torch.maximum(maximum, logits.amax(dim=-1))
            shift = row_shift(highest)
            weights, decay = torch.exp(logits - shift[..., None]), torch.exp(maximum - shift)
            total = total * decay + weights.sum(dim=-1)
            out = out * decay[..., None] + torch.einsum("bgrn,bnge->bgre", weights, values)
            maximum = highest
        maxima.append(maximum)
        totals.append(total)
        weighted.append(out)
    parts = torch.stack(maxima)
    shares = torch.exp(parts - row_shift(parts.amax(dim=0)))
    total = (shares * torch.stack(totals)).sum(dim=0)
    merged = normalised((shares[..., None] * torch.stack(weighted)).sum(dim=0), total[..., None])
    return merged.flatten(1, 2).to(q.dtype)


@register("append_to_pages", backend="torch", name="torch.append_by_index_copy", dtypes=DTYPES, description="index_copy into flat slots")
def append_by_index_copy(k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that are no padding, copied to their slots."""
    check_slots(slots.tolist(), k_pages.shape[0] * k_pages.shape[1])
    kept = torch.nonzero(slots >= 0)[:, 0]

    def written(rows: Tensor, pages: Tensor) -> Tensor:
        return pages.flatten(0, 1).index_copy(0, slots[kept], rows[kept]).reshape(pages.shape)

    return written(k, k_pages), written(v, v_pages)


@register("append_to_pages", backend="torch", name="torch.append_by_scatter", dtypes=DTYPES, description="scatter, padding to a place more")
def append_by_scatter(k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    """Without a choice of rows, as a graph of fixed shapes needs it: padding goes to one place more, which is cut off."""
    places = k_pages.shape[0] * k_pages.shape[1]
    check_slots(slots.tolist(), places)
    target = torch.where(slots < 0, places, slots)[:, None, None]

    def written(rows: Tensor, pages: Tensor) -> Tensor:
        flat = pages.flatten(0, 1)
        more = torch.cat([flat, flat.new_zeros(1, *flat.shape[1:])])
        return more.scatter(0, target.expand(rows.shape), rows)[:places].reshape(pages.shape).clone()

    return written(k, k_pages), written(v, v_pages)
