"""Equinox: `equinox.nn.MultiheadAttention` with identities in the place of its projections, through NumPy arrays."""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np

from conformance import register

__all__ = ["attention"]

Array = np.ndarray


@register(
    "attention",
    backend="numpy",
    name="thirdparty.equinox",
    conventions={"empty_row": "mean"},
    restrictions={
        "h == g": "one key/value head for each query head",
        "b > 0 and h > 0 and l > 0 and s > 0 and d > 0 and e > 0": "there is something to attend to",
    },
    description="equinox.nn.MultiheadAttention",
)
def attention(q: Array, k: Array, v: Array, *, mask: Array | None = None) -> Array:
    """`equinox.nn.MultiheadAttention`, one sequence after the other."""
    batch, heads, length, width = q.shape
    keys, inner = k.shape[2], v.shape[3]
    module = eqx.nn.MultiheadAttention(
        heads, heads * width, key_size=heads * width, value_size=heads * inner, output_size=heads * inner, qk_size=width,
        vo_size=inner, key=jax.random.key(0),
    )  # fmt: skip
    projections = ("query_proj", "key_proj", "value_proj", "output_proj")
    module = eqx.tree_at(lambda m: [getattr(m, name) for name in projections], module, [eqx.nn.Identity() for _ in projections])
    joined = [np.swapaxes(x, 1, 2).reshape(batch, x.shape[2], -1) for x in (q, k, v)]
    masks = None if mask is None else np.broadcast_to(mask, (batch, heads, length, keys))
    call = eqx.filter_jit(module)
    rows = [call(*(x[row] for x in joined), mask=None if masks is None else masks[row]) for row in range(batch)]
    return np.swapaxes(np.array(rows).reshape(batch, length, heads, inner), 1, 2)
