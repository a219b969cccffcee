"""Attention that is spread over processes: what it means does not depend on how.

Ring attention: Liu et al. 2023, arXiv:2310.01889; the blockwise parallel transformer: Liu and Abbeel 2023, arXiv:2305.19370; order of
the tokens that evens out causal work: Brandon et al. 2023 (striped attention), arXiv:2311.09431. Which process holds which tokens is a
matter of the call, `token_shares`; see docs/parallel.md. Every function runs on float64 arrays, on `Bounded` arrays and on Arb balls.

Shapes: B batch, Hq query heads, Hkv key/value heads, L length, D query/key width, Dv value width, F inner width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from oracle.catalogue import method
from oracle.dense import GROUPED, attention, visible_keys
from oracle.readings.features import as_matrix, sigmoid
from oracle.readings.ops import as_stored

__all__ = ["blockwise_transformer", "ring_attention", "token_shares"]

Array = Any  # an ndarray of floats or balls, or a Bounded: whatever the reading brings

SQUARE = {**GROUPED, "l == s": "as many queries as keys"}
TUNABLES = ("world_size", "zigzag", "block_q", "block_k")
SHARDED = ("l", "s")
REFUSABLE = {"h == g": "grouped heads"}


def token_shares(length: int, world_size: int, zigzag: bool = False) -> list[np.ndarray]:
    """Positions of the tokens that each of some processes holds, in order.

    The tokens are cut into world_size chunks, or twice as many, of which chunk i has those from i * length // chunks on: lengths that
    do not divide are spread evenly, and chunks may be empty. In order of the ring process r holds chunk r; in zigzag it holds chunks
    r and 2 * world_size - 1 - r, so that under causality all have the same to do.
    """
    chunks = world_size * (2 if zigzag else 1)
    parts = [np.arange(start, stop) for start, stop in pairwise([length * chunk // chunks for chunk in range(chunks + 1)])]
    return [np.concatenate([parts[rank], parts[-1 - rank]]) if zigzag else parts[rank] for rank in range(world_size)]


def in_parts(v: Array) -> Array:
    """Values whose weighed sum over the keys of each process may be kept in the operand format until the sums are merged.

    Rounding each sum errs by no more than rounding each value: the weights of the parts add up to one, as those of the keys do.
    """
    return as_stored(v)


@method(
    source="Liu et al. 2023, section 3, arXiv:2310.01889",
    shapes="q: b h l d, k: b g s d, v: b g s e -> b h l e",
    where=SQUARE,
    options={"causal": "flag", "scale": "real"},
    tunables=TUNABLES,
    visible=visible_keys,
    refusable=REFUSABLE,
    sharded=SHARDED,
)
def ring_attention(q: Array, k: Array, v: Array, *, causal: bool = False, scale: float | None = None) -> Array:
    """Attention whose keys and values go round a ring of processes, each of which holds some of the tokens.

    It is exact: the softmax over all keys, whoever holds them.

    Args:
        q: queries (B, Hq, L, D).
        k: keys (B, Hkv, L, D).
        v: values (B, Hkv, L, Dv).
        causal: only keys j <= i.
        scale: of the logits; 1 / sqrt(D) by default.

    Returns:
        (B, Hq, L, Dv).

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    return attention.spec(q, k, in_parts(v), causal=causal, scale=scale)


@method(
    source="Liu and Abbeel 2023, section 3, arXiv:2305.19370",
    shapes="q: b h l d, k: b g s d, v: b g s d, w_in: m f, w_out: f m -> b l m",
    where=SQUARE,
    options={"causal": "flag", "scale": "real", "activation": ("relu", "silu")},
    tunables=TUNABLES,
    derived={"m": "h * d"},
    cost="b * h * l * s + b * l * h * d * f",
    refusable=REFUSABLE,
    sharded=SHARDED,
)
def blockwise_transformer(
    q: Array, k: Array, v: Array, w_in: Array, w_out: Array, *, causal: bool = False, scale: float | None = None, activation: str = "relu"
) -> Array:
    """A transformer block that finishes each block of queries, feed-forward included, before it begins the next.

    With z = attention(q, k, v) + q, the heads of a token side by side, the output is z + act(z w_in) w_out: a token's feed-forward needs
    its own attention only. The residual is the queries, as in the paper; normalisation and projections are left to the caller.

    Args:
        q: queries (B, Hq, L, D).
        k: keys (B, Hkv, L, D).
        v: values (B, Hkv, L, D).
        w_in: of the feed-forward network (Hq D, F).
        w_out: (F, Hq D).
        causal: only keys j <= i.
        scale: of the logits; 1 / sqrt(D) by default.
        activation: relu or silu.

    Returns:
        (B, L, Hq D).

    Raises:
        ShapeError: an array does not fit the signature.
        OptionError: an option is unknown or out of range.
    """
    batch, heads, length, width = q.shape
    attended = as_stored(attention.spec(q, k, in_parts(v), causal=causal, scale=scale)) + q
    tokens = as_stored(np.swapaxes(attended, 1, 2).reshape(batch, length, heads * width))
    inner = np.matmul(as_matrix(tokens), w_in)
    active = np.maximum(inner, 0.0) if activation == "relu" else inner * sigmoid(inner)
    return tokens + as_stored(np.matmul(as_matrix(as_stored(active)), w_out))
