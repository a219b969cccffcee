"""Differential attention in NumPy.

Shapes: q1 and q2 (B, Hq, Lq, D), k1 and k2 (B, Hkv, Lk, D), v and v2 (B, Hkv, Lk, Dv) -> (B, Hq, Lq, Dv).
"""

from __future__ import annotations

import numpy as np

from conformance import register
from conformance.registry import block_sizes
from implementations.numpy.logits import Array, Logits, grouped_matmul
from implementations.numpy.softmax import OnlineSoftmax, normalised, row_shift, sink_column
from implementations.tiling import tiles

__all__ = ["differential", "differential_tiled"]

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _finished(out: Array, lam_init: float | None, eps: float) -> Array:
    """The head norm, if there is one: each row over its root mean square, times 1 - lam_init (Ye et al. 2024, eq. 3)."""
    if lam_init is None:
        return out
    inverse = 1 / np.sqrt(np.einsum("bhle,bhle->bhl", out, out) / out.shape[3] + out.dtype.type(eps))
    return out * (inverse[..., None] * out.dtype.type(1 - lam_init))


def _weights(logits: Logits) -> Array:
    """All weights of one map, (B, Hq, Lq, Lk)."""
    scores = logits.tile(slice(0, logits.shape[2]), slice(0, logits.shape[3]))
    weights = np.exp(scores - row_shift(scores.max(axis=-1, keepdims=True, initial=-np.inf)))
    return normalised(weights, weights.sum(axis=-1, keepdims=True))


@register(
    "differential_attention", backend="numpy", name="numpy.differential", dtypes=DTYPES, description="weights subtracted, then one product"
)
def differential(
    q1: Array,
    k1: Array,
    q2: Array,
    k2: Array,
    v: Array,
    *,
    lam: float,
    v2: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    lam_init: float | None = None,
    eps: float = 1e-5,
) -> Array:
    """The two maps as one map whose weights may be negative; values of the second map are further keys."""
    first, second = (Logits(q, k, None, None, causal, None, None, scale) for q, k in ((q1, k1), (q2, k2)))
    taken, given = _weights(second) * first.dtype.type(lam), _weights(first)
    if v2 is None:
        weights, values = given - taken, v.astype(first.dtype)
    else:
        weights, values = np.concatenate([given, -taken], axis=3), np.concatenate([v, v2], axis=2).astype(first.dtype)
    return _finished(grouped_matmul(weights, values), lam_init, eps).astype(v.dtype)


@register(
    "differential_attention", backend="numpy", name="numpy.differential_tiled", dtypes=DTYPES,
    tunables={"block_q": block_sizes, "block_k": block_sizes}, description="both maps side by side, online, tile by tile",
)  # fmt: skip
def differential_tiled(
    q1: Array,
    k1: Array,
    q2: Array,
    k2: Array,
    v: Array,
    *,
    lam: float,
    v2: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    lam_init: float | None = None,
    eps: float = 1e-5,
    block_q: int = 64,
    block_k: int = 64,
) -> Array:
    """A tile of keys serves both maps before the next one is read; each map has its own maximum and denominator."""
    maps = [Logits(q, k, None, None, causal, None, None, scale) for q, k in ((q1, k1), (q2, k2))]
    (batch, heads, queries, _), dtype = maps[0].shape, maps[0].dtype
    values = [x.astype(dtype) for x in (v, v if v2 is None else v2)]
    out = np.empty((batch, heads, queries, v.shape[3]), v.dtype)
    for rows in tiles(slice(0, queries), block_q):
        states = [OnlineSoftmax((batch, heads, rows.stop - rows.start), v.shape[3], sink_column(None, logits)) for logits in maps]
        for keys in tiles(maps[0].band.keys_of(rows), block_k):
            for state, logits, own in zip(states, maps, values, strict=True):
                state.update(logits.tile(rows, keys), own[:, :, keys])
        first, second = (state.result()[0] for state in states)
        out[:, :, rows] = _finished(first - dtype.type(lam) * second, lam_init, eps)
    return out
