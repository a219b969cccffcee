"""Flax: `flax.linen.dot_product_attention`, through NumPy arrays."""

from __future__ import annotations

import jax
import numpy as np
from flax.linen import dot_product_attention

from conformance import register

__all__ = ["attention"]

Array = np.ndarray


@register(
    "attention",
    backend="numpy",
    name="thirdparty.flax",
    layout="b l h d",
    conventions={"empty_row": "mean"},
    restrictions={"h == g": "one key/value head for each query head", "s > 0 and d > 0": "at least one key, of some width"},
    description="flax.linen.dot_product_attention",
)
def attention(q: Array, k: Array, v: Array, *, mask: Array | None = None, bias: Array | None = None) -> Array:
    """`flax.linen.dot_product_attention`."""
    return np.array(jax.jit(dot_product_attention)(q, k, v, bias, mask))
