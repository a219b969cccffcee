"""JAX: `jax.nn.dot_product_attention`, through NumPy arrays."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from conformance import register
from implementations.tiling import Window

__all__ = ["attention"]

Array = np.ndarray


@register(
    "attention",
    backend="numpy",
    name="thirdparty.jax",
    layout="b l h d",
    conventions={"causal_alignment": "top-left", "empty_row": "mean"},
    restrictions={
        "d == e": "values have the shape of keys",
        "s > 0": "at least one key",
        "window is None or l == s": "windows are documented for self-attention",
        "mask_rank in (None, 3, 4) and bias_rank in (None, 3, 4)": "three or four axes",
    },
    description="jax.nn.dot_product_attention",
)
def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    window: Window = None,
    scale: float | None = None,
) -> Array:
    """`jax.nn.dot_product_attention`; a side of a window that is open is as long as there are tokens."""
    length = max(q.shape[1], k.shape[1])
    sizes = None if window is None else tuple(length if side is None else side for side in window)
    call = partial(jax.nn.dot_product_attention, scale=scale, is_causal=causal, local_window_size=sizes)
    return np.array(jax.jit(call)(q, k, v, bias, mask))
