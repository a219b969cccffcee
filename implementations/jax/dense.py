"""Dense attention in JAX, each kernel compiled once for each shape: all logits at once, and FlashAttention-2 as loops of `lax`.

Shapes: q (B, Hq, Lq, D), k (B, Hkv, Lk, D), v (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv). Everything computes in float32 (in float64 for
float64). The keyword options are those of the method `attention`; what decides the shape of the program is static.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from conformance import register
from conformance.registry import block_sizes
from implementations.jax.logits import Logits, divided, row_shift, rows_at, weigh, working_dtype
from implementations.tiling import Window

__all__ = ["flash2", "flash2_with_lse", "merge", "standard", "standard_with_lse"]

DTYPES = ("float32", "float64", "float16", "bfloat16")
TILES = {"block_q": block_sizes, "block_k": block_sizes}
Parts = tuple[Array, Array]


def _standard(logits: Logits, v: Array, sinks: Array | None) -> Parts:
    """All logits at once, the sink as one more column."""
    queries, keys = logits.shape[3:]
    scores = logits.at(jnp.arange(queries), jnp.arange(keys))
    column = jnp.broadcast_to(logits.sinks(sinks), (*scores.shape[:4], 1))
    scores = jnp.concatenate([scores, column], axis=-1)
    maximum = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - row_shift(maximum))
    total = weights.sum(axis=-1, keepdims=True)
    out = divided(weigh(weights[..., :keys], logits.values(v)), total)
    return logits.joined(out), logits.joined((maximum + jnp.log(total))[..., 0])


def _flash2(logits: Logits, v: Array, sinks: Array | None, block_q: int, block_k: int) -> Parts:
    """Queries outer, keys inner, both padded to whole tiles: a scan over tiles of keys carries maximum, denominator and numerator."""
    batch, groups, per_group, queries, keys = logits.shape
    block_q, block_k = min(block_q, max(queries, 1)), min(block_k, max(keys, 1))
    values, width = logits.values(v), v.shape[3]
    key_tiles = jnp.arange(-(-keys // block_k)) * block_k

    def rows(start: Array) -> Parts:
        own = start + jnp.arange(block_q)
        shape = (batch, groups, per_group, block_q, 1)
        maximum = jnp.broadcast_to(logits.sinks(sinks), shape)
        total = jnp.exp(maximum - row_shift(maximum))

        def tile(state: tuple[Array, Array, Array], first: Array) -> tuple[tuple[Array, Array, Array], None]:
            maximum, total, weighted = state
            positions = first + jnp.arange(block_k)
            scores = logits.at(own, positions)
            highest = jnp.maximum(maximum, scores.max(axis=-1, keepdims=True))
            weights, kept = jnp.exp(scores - row_shift(highest)), jnp.exp(maximum - row_shift(highest))
            taken = rows_at(values, positions, 2)
            return (highest, kept * total + weights.sum(axis=-1, keepdims=True), kept * weighted + weigh(weights, taken)), None

        start_state = (maximum, total, jnp.zeros((*shape[:4], width), logits.dtype))
        (maximum, total, weighted), _ = lax.scan(tile, start_state, key_tiles)
        return divided(weighted, total), (maximum + jnp.log(total))[..., 0]

    count = -(-queries // block_q)
    outs, lses = lax.map(rows, jnp.arange(count) * block_q)
    # (tiles, B, Hkv, G, block, ...) -> (B, Hq, Lq, ...), without the padding.
    out = jnp.moveaxis(outs, 0, 3).reshape(batch, groups * per_group, count * block_q, width)
    lse = jnp.moveaxis(lses, 0, 3).reshape(batch, groups * per_group, count * block_q)
    return out[:, :, :queries], lse[:, :, :queries]


@register("attention", backend="jax", name="jax.standard", dtypes=DTYPES, description="all logits at once, in one compiled program")
@partial(jax.jit, static_argnames=("causal", "window"))
def standard(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
) -> Array:
    """Plain softmax attention over the whole matrix of logits (Vaswani et al. 2017, arXiv:1706.03762)."""
    out, _ = _standard(Logits(q, k, mask, bias, causal, window, softcap, scale), v, sinks)
    return out.astype(q.dtype)


@register(
    "attention", backend="jax", name="jax.flash2", dtypes=DTYPES, tunables=TILES, description="FlashAttention-2 by lax.map and lax.scan"
)
@partial(jax.jit, static_argnames=("causal", "window", "block_q", "block_k"))
def flash2(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Array:
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691): queries in the outer loop."""
    out, _ = _flash2(Logits(q, k, mask, bias, causal, window, softcap, scale), v, sinks, block_q, block_k)
    return out.astype(q.dtype)


@register(
    "attention_with_lse", backend="jax", name="jax.standard_with_lse", dtypes=DTYPES,
    description="all logits at once, with the log of the denominator",
)  # fmt: skip
@partial(jax.jit, static_argnames=("causal", "window"))
def standard_with_lse(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
) -> Parts:
    """`standard`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    out, lse = _standard(Logits(q, k, mask, bias, causal, window, softcap, scale), v, sinks)
    return out.astype(q.dtype), lse


@register(
    "attention_with_lse", backend="jax", name="jax.flash2_with_lse", dtypes=DTYPES, tunables=TILES,
    description="FlashAttention-2, with the log of the denominator",
)  # fmt: skip
@partial(jax.jit, static_argnames=("causal", "window", "block_q", "block_k"))
def flash2_with_lse(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    softcap: float | None = None,
    scale: float | None = None,
    sinks: Array | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> Parts:
    """`flash2`, and the log of the denominator of each row in the working dtype, (B, Hq, Lq)."""
    out, lse = _flash2(Logits(q, k, mask, bias, causal, window, softcap, scale), v, sinks, block_q, block_k)
    return out.astype(q.dtype), lse


@register("merge_attention_states", backend="jax", name="jax.merge", dtypes=DTYPES, description="all parts in one reduction")
@jax.jit
def merge(outs: Array, lses: Array) -> Parts:
    """Combine the parts outs (N, B, H, L, Dv), lses (N, B, H, L), all at once."""
    dtype = working_dtype(outs)
    lses = lses.astype(dtype)
    maximum = lses.max(axis=0, initial=-jnp.inf)
    weights = jnp.exp(lses - row_shift(maximum))
    total = weights.sum(axis=0)
    # Many kernels never write the output of an empty part, so its weight of 0 must select rather than multiply.
    parts = jnp.where(jnp.isneginf(lses)[..., None], 0, outs.astype(dtype))
    out = divided((weights[..., None] * parts).sum(axis=0), total[..., None])
    return out.astype(outs.dtype), maximum + jnp.log(total)
