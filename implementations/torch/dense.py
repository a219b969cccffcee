"""Dense attention in PyTorch, on any device: plain, the two loop orders of FlashAttention, and split-K.

Every kernel is vectorised over batch, heads and tile, reads strided views as they are, and computes in float32 (in float64
for float64) whatever it is given. Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv).
The keyword options are those of the method `attention`; blocks and splits are tunables and never change the meaning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conformance import register
from conformance.registry import block_sizes, split_counts
from implementations.tiling import Window, splits, tiles
from implementations.torch.logits import Logits, grouped_matmul, working_dtype
from implementations.torch.softmax import OnlineSoftmax, merge_states, normalised, row_shift, sink_column

__all__ = [
    "flash",
    "flash2",
    "flash2_with_lse",
    "merge",
    "split_k",
    "split_k_with_lse",
    "standard",
    "standard_with_lse",
]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TILES = {"block_q": block_sizes, "block_k": block_sizes}
SPLITS = {"num_splits": split_counts, "block_k": block_sizes}


def _standard(logits: Logits, v: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """All logits at once, the sink as one more column: normalise the weights, then weigh the values."""
    _, _, queries, keys = logits.shape
    scores = logits.tile(slice(0, queries), slice(0, keys))
    sink = sink_column(sinks, logits).expand(*scores.shape[:3], 1)
    scores = torch.cat([scores, sink], dim=-1)
    lse = torch.logsumexp(scores, dim=-1)
    # softmax over nothing but -inf is NaN
    weights = torch.softmax(scores, dim=-1).masked_fill(torch.isneginf(lse)[..., None], 0.0)
    return grouped_matmul(weights[..., :keys], v.to(logits.dtype)), lse


def _flash(logits: Logits, v: Tensor, sinks: Tensor | None, block_q: int, block_k: int) -> Tensor:
    """Keys outer, queries inner: every query's state stays in memory, and its output is normalised after each tile (Algorithm 1)."""
    batch, heads, queries, keys = logits.shape
    v = v.to(logits.dtype)
    maximum = sink_column(sinks, logits).expand(batch, heads, queries, 1).clone()
    total = torch.exp(maximum - row_shift(maximum))
    out = v.new_zeros(batch, heads, queries, v.shape[3])
    for key_tile in tiles(slice(0, keys), block_k):
        for query_tile in tiles(logits.band.queries_of(key_tile), block_q):
            rows = (slice(None), slice(None), query_tile)
            scores = logits.tile(query_tile, key_tile)
            highest = torch.maximum(maximum[rows], scores.amax(dim=-1, keepdim=True))
            shift = row_shift(highest)
            weights = torch.exp(scores - shift)
            kept = torch.exp(maximum[rows] - shift) * total[rows]
            total[rows] = kept + weights.sum(dim=-1, keepdim=True)
            out[rows] = normalised(kept * out[rows] + grouped_matmul(weights, v[:, :, key_tile]), total[rows])
            maximum[rows] = highest
    return out


def _flash2(logits: Logits, v: Tensor, sinks: Tensor | None, block_q: int, block_k: int) -> tuple[Tensor, Tensor]:
    """Queries outer, keys inner: a tile of queries is finished before the next one begins, and normalised once."""
    batch, heads, queries, _ = logits.shape
    v = v.to(logits.dtype)
    sink = sink_column(sinks, logits)
    out = v.new_empty(batch, heads, queries, v.shape[3])
    lse = v.new_empty(batch, heads, queries)
    for query_tile in tiles(slice(0, queries), block_q):
        state = OnlineSoftmax((batch, heads, query_tile.stop - query_tile.start), v.shape[3], sink)
        for key_tile in tiles(logits.band.keys_of(query_tile), block_k):
            state.update(logits.tile(query_tile, key_tile), v[:, :, key_tile])
        out[:, :, query_tile], lse[:, :, query_tile] = state.result()
    return out, lse


def _split_k(logits: Logits, v: Tensor, sinks: Tensor | None, num_splits: int, block_k: int) -> tuple[Tensor, Tensor]:
    """Flash-decoding: each split of the keys is attended to on its own; the normalised parts are merged by their lse."""
    batch, heads, queries, keys = logits.shape
    v = v.to(logits.dtype)
    no_sink = sink_column(None, logits)
    # The sink joins once, as a part of its own with zeros for output, and not in every split.
    outs = [v.new_zeros(batch, heads, queries, v.shape[3])]
    lses = [sink_column(sinks, logits)[..., 0].expand(batch, heads, queries)]
    for part in splits(keys, num_splits):
        state = OnlineSoftmax((batch, heads, queries), v.shape[3], no_sink)
        for key_tile in tiles(part, block_k):
            state.update(logits.tile(slice(0, queries), key_tile), v[:, :, key_tile])
        out, lse = state.result()
        outs.append(out)
        lses.append(lse)
    return merge_states(torch.stack(outs), torch.stack(lses))


@register("attention", backend="torch", name="torch.standard", dtypes=DTYPES, description="all logits at once, softmax, times the values")
def standard(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Plain softmax attention over the whole matrix of logits (Vaswani et al. 2017, arXiv:1706.03762)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, _ = _standard(logits, v, sinks)
    return out.to(q.dtype)


@register(
    "attention",
    backend="torch",
    name="torch.flash",
    dtypes=DTYPES,
    tunables=TILES,
    description="FlashAttention: keys outer, normalised after each tile",
)
def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
    block_q: int = 256,
    block_k: int = 512,
) -> Tensor:
    """FlashAttention (Dao et al. 2022, arXiv:2205.14135): keys in the outer loop."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    return _flash(logits, v, sinks, block_q, block_k).to(q.dtype)


@register(
    "attention",
    backend="torch",
    name="torch.flash2",
    dtypes=DTYPES,
    tunables=TILES,
    description="FlashAttention-2: queries outer, normalised once",
)
def flash2(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
    block_q: int = 256,
    block_k: int = 512,
) -> Tensor:
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691): queries in the outer loop."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, _ = _flash2(logits, v, sinks, block_q, block_k)
    return out.to(q.dtype)


@register(
    "attention",
    backend="torch",
    name="torch.split_k",
    dtypes=DTYPES,
    tunables=SPLITS,
    description="flash-decoding: splits of the keys, merged by their lse",
)
def split_k(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
    num_splits: int = 4,
    block_k: int = 512,
) -> Tensor:
    """Split-K attention, as flash-decoding does for few queries and many keys."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, _ = _split_k(logits, v, sinks, num_splits, block_k)
    return out.to(q.dtype)


@register(
    "attention_with_lse",
    backend="torch",
    name="torch.standard_with_lse",
    dtypes=DTYPES,
    description="all logits at once, with the log of the denominator",
)
def standard_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`standard`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, lse = _standard(logits, v, sinks)
    return out.to(q.dtype), lse


@register(
    "attention_with_lse",
    backend="torch",
    name="torch.flash2_with_lse",
    dtypes=DTYPES,
    tunables=TILES,
    description="FlashAttention-2, with the log of the denominator",
)
def flash2_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
    block_q: int = 256,
    block_k: int = 512,
) -> tuple[Tensor, Tensor]:
    """`flash2`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, lse = _flash2(logits, v, sinks, block_q, block_k)
    return out.to(q.dtype), lse


@register(
    "attention_with_lse",
    backend="torch",
    name="torch.split_k_with_lse",
    dtypes=DTYPES,
    tunables=SPLITS,
    description="flash-decoding, with the log of the denominator",
)
def split_k_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
    num_splits: int = 4,
    block_k: int = 512,
) -> tuple[Tensor, Tensor]:
    """`split_k`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    logits = Logits(q, k, mask, bias, causal, window, softcap, scale)
    out, lse = _split_k(logits, v, sinks, num_splits, block_k)
    return out.to(q.dtype), lse


@register(
    "merge_attention_states",
    backend="torch",
    name="torch.merge",
    dtypes=DTYPES,
    description="all parts in one reduction, as after a split",
)
def merge(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Combine the parts outs (N, B, H, L, Dv), lses (N, B, H, L), all at once."""
    dtype = working_dtype(outs)
    out, lse = merge_states(outs.to(dtype), lses.to(dtype))
    return out.to(outs.dtype), lse
